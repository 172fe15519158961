//! `stockade kill`.

use clap::Args;
use stockade_protocol::agent::ErrorKind;

use crate::agent::ClientError;
use crate::cli::Globals;
use crate::container_id::ContainerId;
use crate::error::ContainerError;
use crate::life_cycle::{Visit, explain, no_longer_runs};
use crate::state::{Record, Root};
use crate::sys::process::ProcessRef;
use crate::sys::signals;

/// Send a signal to a container.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  stockade kill mine\n  stockade kill mine KILL\n  stockade kill --all mine SIGUSR1\n  stockade kill mine 0    # only asks whether it runs\n  stockade kill --regex '^job-'"
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
    /// ID is a regular expression: send it to every container whose ID it matches
    #[arg(short, long)]
    regex: bool,
}

impl Kill {
    /// Sends it.
    ///
    /// # Errors
    /// [`ContainerError`], or why the guest's agent could not send it.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let signal = signals::parse(&self.signal)?;
        let root = Root::new(globals.root.as_deref());
        root.named(&self.id, self.regex)?
            .iter()
            .map(|id| self.send(signal, globals, id))
            .fold(Ok(()), Result::and)
    }

    fn send(&self, signal: i32, globals: &Globals, id: &ContainerId) -> anyhow::Result<()> {
        let visit = Visit::peek(globals, id.as_str())?;
        let outcome = self.deliver(signal, &visit);
        // As runc: a container that has stopped has no processes, and all of them have got it. A shim makes sure so.
        if self.all && outcome.as_ref().is_err_and(is_not_running) { Ok(()) } else { outcome }
    }

    fn deliver(&self, signal: i32, visit: &Visit) -> anyhow::Result<()> {
        visit.relay()?;
        match visit.ask(|control, id, wait| control.signal(id, signal, self.all, wait)) {
            Ok(()) => Ok(()),
            Err(ClientError::Agent(error)) if error.kind == ErrorKind::WrongState => {
                Err(ContainerError::NotRunning.into())
            }
            Err(error) if signal == libc::SIGKILL && !no_longer_runs(&error) => {
                tracing::warn!("{error}; the VM is killed instead");
                kill_vm(&visit.record);
                Ok(())
            }
            Err(error) => Err(explain(error)),
        }
    }
}

fn is_not_running(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ContainerError::NotRunning))
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
