//! The exit statuses of commands that have failed.

use stockade_protocol::agent::{AgentError, ErrorKind};

use crate::vm::agent::ClientError;

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
#[path = "exit_status_test.rs"]
mod tests;
