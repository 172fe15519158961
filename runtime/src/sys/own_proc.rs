//! A procfs by which a process whose root is not its own to trust reaches sockets that it was given.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::fchdir;

/// The procfs of this process's PID namespace.
#[derive(Clone, Debug)]
pub struct OwnProc(Arc<OwnedFd>);

impl From<OwnedFd> for OwnProc {
    fn from(folder: OwnedFd) -> Self {
        Self(Arc::new(folder))
    }
}

impl OwnProc {
    /// Makes it the calling thread's current folder, and no other's.
    ///
    /// # Errors
    /// unshare(2)'s and fchdir(2)'s.
    pub fn enter(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_FS)?;
        Ok(fchdir(&*self.0)?)
    }

    /// Connects to a socket that is open with O_PATH, in a thread that has entered. What it is in has no path in this root, and
    /// cannot be reached from it.
    ///
    /// # Errors
    /// connect(2)'s.
    pub fn connect(&self, socket: &OwnedFd) -> io::Result<UnixStream> {
        UnixStream::connect(Path::new("self/fd").join(socket.as_raw_fd().to_string()))
    }
}
