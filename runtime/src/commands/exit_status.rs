//! The exit statuses of commands that have failed: runc's, which docs/spec.md lists.

/// Marks a failure of `exec` itself: its exit status is 255, by which callers distinguish it from a status of the
/// process.
#[derive(Debug, thiserror::Error)]
#[error("exec failed")]
pub struct ExecFailed;

/// Exit status of an exec that has not started its process.
const EXEC_FAILED: u8 = 255;

/// The status that a failed command exits with. There is no separate status for a program that does not exist or may
/// not be executed: podman, Docker and containerd find that out from the message.
pub fn exit_status(error: &anyhow::Error) -> u8 {
    if error.is::<ExecFailed>() { EXEC_FAILED } else { 1 }
}

#[cfg(test)]
#[path = "exit_status_test.rs"]
mod tests;
