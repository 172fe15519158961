//! Errors for the host: [`AgentError`], which is made where the failed step is known.

use std::io;

use nix::errno::Errno;
pub use stockade_protocol::agent::{AgentError, ErrorKind};

/// A result that can go to the host as it is.
pub type Result<T, E = AgentError> = std::result::Result<T, E>;

/// An error of this kind with this one-line message.
pub fn error(kind: ErrorKind, message: impl Into<String>) -> AgentError {
    AgentError { kind, message: message.into() }
}

/// The kernel's text for an errno, in the lower case that callers match (`no such file or directory`).
pub fn reason(errno: Errno) -> String {
    let mut text = errno.desc().to_owned();
    text[..1].make_ascii_lowercase();
    text
}

/// Names the step that failed.
pub trait Context<T> {
    /// Names the step, which failed because of what the host asked for.
    fn or_spec(self, step: impl FnOnce() -> String) -> Result<T>;
    /// Names the step, which should never fail, whatever the host asks for.
    fn or_internal(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn or_spec(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| error(ErrorKind::Spec, format!("{}: {}", step(), reason(errno))))
    }

    fn or_internal(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| error(ErrorKind::Internal, format!("{}: {}", step(), reason(errno))))
    }
}

impl<T> Context<T> for io::Result<T> {
    fn or_spec(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| errno_of(&error)).or_spec(step)
    }

    fn or_internal(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| errno_of(&error)).or_internal(step)
    }
}

/// The errno of a failed system call; EIO for an error of the standard library (a write that wrote nothing).
pub fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
