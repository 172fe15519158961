//! `stockade kill`.

use std::time::Duration;

use clap::Args;
use stockade_protocol::agent::{AgentError, ErrorKind};

use crate::life_cycle::{self, Handle, explain, no_longer_runs};
use crate::oci::container_id::ContainerId;
use crate::options::Globals;
use crate::state::{ContainerError, Root};
use crate::sys::deadline::Deadline;
use crate::sys::signals;
use crate::vm::MachineError;
use crate::vm::agent::{ClientError, call};

/// How long a guest may take to kill a container.
const OBEYS_WITHIN: Duration = Duration::from_secs(3);

/// How long the relay of a container that was killed on the host may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

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
        let handle = Handle::peek(globals, id.as_str())?;
        let outcome = self.deliver(signal, &handle);
        // As runc: a stopped container has no processes, so all of them have got the signal. Shims rely on that.
        if self.all && outcome.as_ref().is_err_and(is_not_running) { Ok(()) } else { outcome }
    }

    fn deliver(&self, signal: i32, handle: &Handle) -> anyhow::Result<()> {
        let relay = handle.relay()?.open().ok_or(ContainerError::NotRunning)?;
        let ask = call::Signal(handle.id.to_string(), signal, self.all);
        if signal != libc::SIGKILL {
            return outcome(handle.ask(ask));
        }
        // The guest is asked first, so that the container's last output is delivered. If it does not obey, the host
        // kills.
        let deadline = Deadline::within(OBEYS_WITHIN);
        let asked = handle.ask_by(deadline, ask);
        let delivered = match asked {
            Ok(()) | Err(ClientError::Machine(MachineError::ContainerEnded)) => Ok(()),
            Err(error) if is_refusal(&error) => outcome(Err(error)),
            Err(error) => {
                tracing::warn!("{error}; the container is killed on the host instead");
                Ok(())
            }
        };
        if !relay.wait_end(deadline.left()) {
            tracing::debug!("the container has not ended by itself");
            life_cycle::kill(&handle.record);
            relay.wait_end(ENDS_WITHIN);
        }
        delivered
    }
}

/// Translates the agent's answer to Signal into the command's result.
fn outcome(delivered: Result<(), ClientError>) -> anyhow::Result<()> {
    delivered
        .map_err(|error| if is_refusal(&error) { ContainerError::NotRunning.into() } else { explain(error) })
}

/// Whether the agent says that there is nothing to send a signal to.
fn is_refusal(error: &ClientError) -> bool {
    let is_wrong_state = |error: &AgentError| error.kind == ErrorKind::WrongState;
    no_longer_runs(error) || matches!(error, ClientError::Agent(error) if is_wrong_state(error))
}

fn is_not_running(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ContainerError::NotRunning))
}
