//! A procfs through which a process that cannot trust its root directory connects to sockets that it was given.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::fchdir;

use super::descriptors;

/// Proof that this process's current directory is the procfs of its PID namespace.
#[derive(Clone, Copy, Debug)]
pub struct OwnProc(());

impl OwnProc {
    /// Makes this procfs the current directory of all threads.
    ///
    /// # Errors
    /// fchdir(2)'s.
    pub fn enter(proc: OwnedFd) -> io::Result<Self> {
        fchdir(&proc)?;
        Ok(Self(()))
    }

    /// Connects to a socket that is open with O_PATH. The socket's directory has no path in this root, and cannot be
    /// reached from it.
    ///
    /// # Errors
    /// connect(2)'s; `TimedOut` if the listener's queue stays full.
    pub fn connect(self, socket: &OwnedFd) -> io::Result<UnixStream> {
        descriptors::connect_in_time(&Path::new("self/fd").join(socket.as_raw_fd().to_string()))
    }
}
