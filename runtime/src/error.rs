//! Errors that callers tell apart, and the exit status each gives.

use stockade_protocol::agent::{AgentError, ErrorKind};

use crate::vm::agent::ClientError;

/// What engines recognise by its text; the words are runc's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ContainerError {
    /// No state for this ID.
    #[error("container {0:?} does not exist")]
    DoesNotExist(String),
    /// State for this ID is there.
    #[error("container with id exists: {0:?}; choose another ID or delete it")]
    Exists(String),
    /// A signal for a container that has stopped.
    #[error("container not running")]
    NotRunning,
    /// Start of a container that runs.
    #[error("cannot start an already running container")]
    AlreadyRunning,
    /// Start of a container that has stopped.
    #[error("cannot start a container that has stopped")]
    HasStopped,
    /// Start of a container that is paused.
    #[error("cannot start a container in the paused state")]
    StartPaused,
    /// Exec in a container that has ended.
    #[error("cannot exec in a stopped container")]
    ExecStopped,
    /// Exec in a container that is paused.
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    ExecPaused,
    /// Exec in a container that `create` has not finished.
    #[error("cannot exec in a container that is still being created")]
    ExecCreating,
    /// Pause of a container that is paused already, or neither created nor running.
    #[error("cannot pause the container: container not running; it is {0}")]
    CannotPause(&'static str),
    /// Resume of a container that is not paused.
    #[error("container not paused")]
    NotPaused,
    /// Delete without `--force`.
    #[error("cannot delete container {id:?} that is not stopped: it is {status} (use --force to kill it)")]
    NotStopped {
        /// The container's ID.
        id: String,
        /// Its status.
        status: &'static str,
    },
}

/// Any failure of `exec`, which its callers tell from the process's own status by the exit status 255.
#[derive(Debug, thiserror::Error)]
#[error("exec failed")]
pub struct ExecFailed;

/// Exit status of an exec that has not come to its process.
const EXEC_FAILED: u8 = 255;
/// Exit status for an executable that is not there.
const NOT_FOUND: u8 = 127;
/// Exit status for an executable that may not be executed.
const NOT_EXECUTABLE: u8 = 126;

/// The status that a failed command exits with.
pub fn exit_status(error: &anyhow::Error) -> u8 {
    let from_agent = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(ClientError::Agent(error)) => Some(error),
        _ => cause.downcast_ref::<AgentError>(),
    });
    match from_agent.map(|error| error.kind) {
        Some(ErrorKind::ExecutableNotFound) => NOT_FOUND,
        Some(ErrorKind::NotExecutable) => NOT_EXECUTABLE,
        _ if error.is::<ExecFailed>() => EXEC_FAILED,
        _ => 1,
    }
}

#[cfg(test)]
#[path = "error_test.rs"]
mod tests;
