//! `stockade kill`.

use clap::Args;

use crate::life_cycle::{self, Handle};
use crate::oci::container_id::ContainerId;
use crate::options::Globals;
use crate::state::Root;
use crate::sys::signals;

/// Send a signal to a container.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  stockade kill mine\n  stockade kill mine KILL\n  stockade kill --all mine SIGUSR1\n  stockade kill mine 0    # only asks whether the container runs\n  stockade kill --regex '^job-'"
)]
pub struct Kill {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
    /// Name or number of the signal
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    signal: String,
    /// Send the signal to every process of the container
    #[arg(short, long)]
    all: bool,
    /// ID is a regular expression: send the signal to every container whose ID it matches
    #[arg(short, long)]
    regex: bool,
}

impl Kill {
    /// Sends the signal.
    ///
    /// # Errors
    /// [`crate::state::ContainerError`], or why the guest's agent could not send it.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let signal = signals::parse(&self.signal)?;
        let root = Root::new(globals.root.as_deref());
        root.named(&self.id, self.regex)?
            .iter()
            .map(|id| self.send(signal, globals, id))
            .fold(Ok(()), Result::and)
    }

    fn send(&self, signal: i32, globals: &Globals, id: &ContainerId) -> anyhow::Result<()> {
        let handle = Handle::peek(globals, id.as_str())?;
        life_cycle::signal(&handle, signal, self.all)
    }
}
