//! Sending a signal to a container.

use std::time::Duration;

use stockade_protocol::agent::{AgentError, ErrorKind};

use super::{Handle, explain, no_longer_runs, remove};
use crate::state::ContainerError;
use crate::sys::deadline::Deadline;
use crate::vm::MachineError;
use crate::vm::agent::{ClientError, call};

/// How long a guest may take to kill a container.
const OBEYS_WITHIN: Duration = Duration::from_secs(3);

/// How long the relay of a container that was killed on the host may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Sends a signal to a container's first process or, with `all`, to every process of it.
///
/// # Errors
/// [`ContainerError::NotRunning`], or why the guest's agent could not send it.
pub fn signal(handle: &Handle, signal: i32, all: bool) -> anyhow::Result<()> {
    let outcome = deliver(handle, signal, all);
    // As runc: a stopped container has no processes, so all of them have got the signal. Shims rely on that.
    if all && outcome.as_ref().is_err_and(is_not_running) { Ok(()) } else { outcome }
}

fn deliver(handle: &Handle, signal: i32, all: bool) -> anyhow::Result<()> {
    let relay = handle.relay()?.open().ok_or(ContainerError::NotRunning)?;
    let ask = call::Signal(handle.id.to_string(), signal, all);
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
        remove::kill(&handle.record);
        relay.wait_end(ENDS_WITHIN);
    }
    delivered
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
