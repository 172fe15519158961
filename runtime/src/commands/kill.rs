//! `stockade kill`.

use std::os::fd::AsFd;
use std::time::Duration;

use clap::Args;
use stockade_protocol::agent::{ErrorKind, Purpose};

use crate::agent::{ClientError, Connection, Visitor};
use crate::cli::Globals;
use crate::container_id::ContainerId;
use crate::error::ContainerError;
use crate::state::{Record, Root};
use crate::sys::process::ProcessRef;
use crate::sys::signals;

/// How long the agent may take to send a signal.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Send a signal to a container.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  stockade kill mine\n  stockade kill mine KILL\n  stockade kill --all mine SIGUSR1\n  stockade kill mine 0    # only asks whether it runs"
)]
pub struct Kill {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
    /// Name or number
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    signal: String,
    /// Send it to every process of the container
    #[arg(short, long)]
    all: bool,
}

impl Kill {
    /// Sends it.
    ///
    /// # Errors
    /// [`ContainerError`], or why the guest's agent could not send it.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let id: ContainerId = self.id.parse()?;
        let signal = signals::parse(&self.signal)?;
        let folder = Root::new(globals.root.as_deref()).peek(&id)?;
        let record = folder.read()?.ok_or(ContainerError::NotRunning)?;
        if !record.relay.is_some_and(|relay| relay.is_alive()) {
            return Err(ContainerError::NotRunning.into());
        }
        let mut wait = Visitor::new(folder.as_fd(), ANSWERS_WITHIN);
        let sent = Connection::open(folder.as_fd(), Purpose::Control, &mut wait)
            .and_then(|mut control| control.signal(id.as_str(), signal, self.all, &mut wait));
        match sent {
            Ok(()) => Ok(()),
            Err(ClientError::Agent(error)) if is_gone(error.kind) => Err(ContainerError::NotRunning.into()),
            Err(error) if signal == libc::SIGKILL => {
                tracing::warn!("{error}; the VM is killed instead");
                kill_vm(&record);
                Ok(())
            }
            Err(ClientError::Agent(error)) => Err(error.into()),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NoProcess | ErrorKind::NotFound | ErrorKind::WrongState)
}

/// What SIGKILL means to a guest that does not answer.
fn kill_vm(record: &Record) {
    for process in
        [record.vmm, record.relay].into_iter().flatten().filter_map(|process: ProcessRef| process.open())
    {
        // It fails only where the process has ended in the meantime.
        let _ = process.signal(libc::SIGKILL);
    }
}
