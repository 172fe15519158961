//! A procfs by which a process whose root is not its own to trust reaches sockets that it was given.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::fchdir;

use super::descriptors;

/// This process's current directory is the procfs of its PID namespace.
#[derive(Clone, Copy, Debug)]
pub struct OwnProc(());

impl OwnProc {
    /// Makes it that, for all threads.
    ///
    /// # Errors
    /// fchdir(2)'s.
    pub fn enter(proc: OwnedFd) -> io::Result<Self> {
        fchdir(&proc)?;
        Ok(Self(()))
    }

    /// Connects to a socket that is open with O_PATH. What it is in has no path in this root, and cannot be reached from it.
    ///
    /// # Errors
    /// connect(2)'s; `TimedOut` where the listener has accepted nobody for so long that its queue is full.
    pub fn connect(self, socket: &OwnedFd) -> io::Result<UnixStream> {
        descriptors::connect_in_time(&Path::new("self/fd").join(socket.as_raw_fd().to_string()))
    }
}
