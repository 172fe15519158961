//! `stockade start`.

use clap::Args;

use crate::life_cycle::{self, Handle};
use crate::options::Globals;
use crate::state::ContainerError;

/// Start the process of a created container.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  stockade start mine")]
pub struct Start {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
}

impl Start {
    /// Starts the container's process.
    ///
    /// # Errors
    /// [`ContainerError`] in another state than "created", or why the program cannot be executed.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let handle = Handle::lock(globals, &self.id)?;
        handle.relay().map_err(|_| ContainerError::HasStopped)?;
        life_cycle::start(&handle.directory, &handle.record, &mut handle.wait())
    }
}
