//! Why there is no relay.

use std::io;
use std::path::PathBuf;

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The network namespace is not usable.
    #[error("linux.namespaces: cannot open the network namespace {path}: {cause}")]
    Network {
        /// As given.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A system call failed.
    #[error("cannot start the container's relay on the host: {what}: {cause}")]
    System {
        /// What it was for.
        what: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// The relay's own explanation.
    #[error("{0}")]
    Failed(String),
    /// It made a system call that it may not make.
    #[error(
        "the relay of the container was killed by SIGSYS: it made a system call that its seccomp filter does not allow; \
         the kernel's log has its number (audit, type 1326)"
    )]
    Forbidden,
    /// It died without one.
    #[error("the container's relay on the host died while it was being set up (killed, or out of memory?)")]
    Died,
}

pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> RelayError {
    move |cause| RelayError::System { what, cause }
}
