//! The exit statuses of commands that have failed: runc's, which docs/spec.md lists.

/// Any failure of `exec`, which its callers tell from the process's own status by the exit status 255.
#[derive(Debug, thiserror::Error)]
#[error("exec failed")]
pub struct ExecFailed;

/// Exit status of an exec that has not come to its process.
const EXEC_FAILED: u8 = 255;

/// The status that a failed command exits with. A program that is not there or may not be executed has none of its own:
/// podman, Docker and containerd find that out by the message.
pub fn exit_status(error: &anyhow::Error) -> u8 {
    if error.is::<ExecFailed>() { EXEC_FAILED } else { 1 }
}

#[cfg(test)]
#[path = "exit_status_test.rs"]
mod tests;
