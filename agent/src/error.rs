//! Errors as the host gets them: [`AgentError`], built where the failed step is known.

use std::io;

use nix::errno::Errno;
pub use stockade_protocol::agent::{AgentError, ErrorKind};

/// A result that can go to the host as it is.
pub type Result<T, E = AgentError> = std::result::Result<T, E>;

/// An error of this kind with this one-line message.
pub fn error(kind: ErrorKind, message: impl Into<String>) -> AgentError {
    AgentError { kind, message: message.into() }
}

/// What the kernel says, in the small letters that callers match (`no such file or directory`).
pub fn reason(errno: Errno) -> String {
    let mut text = errno.desc().to_owned();
    text[..1].make_ascii_lowercase();
    text
}

/// Names the step that failed.
pub trait Context<T> {
    /// The step failed because of what the host asked for.
    fn or_spec(self, step: impl FnOnce() -> String) -> Result<T>;
    /// The step should not fail whatever the host asks for.
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

/// The errno of a failed system call; EIO for an error that std made up (a write that wrote nothing).
pub fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
