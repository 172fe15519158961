//! Why there is no relay.

use std::io;
use std::path::PathBuf;

/// Why a relay could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The network namespace is not usable.
    #[error("linux.namespaces: cannot open the network namespace {path}: {cause}")]
    Network {
        /// The path from config.json.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// A system call failed.
    #[error("cannot start the container's relay on the host: {what}: {cause}")]
    System {
        /// What the system call was for.
        what: &'static str,
        /// The cause.
        cause: io::Error,
    },
    /// The relay has failed with this explanation.
    #[error("{0}")]
    Failed(String),
    /// It made a system call that it may not make.
    #[error(
        "the relay of the container was killed by SIGSYS: it made a system call that its seccomp filter does not allow; \
         the kernel's log has its number (audit, type 1326)"
    )]
    Forbidden,
    /// The relay died without an explanation.
    #[error("the container's relay on the host died while it was being set up (killed, or out of memory?)")]
    Died,
}

pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> RelayError {
    move |cause| RelayError::System { what, cause }
}
