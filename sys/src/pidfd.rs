//! Processes by descriptor (pidfd_open(2)): a number that is used again does not stand for another process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{done, made};

/// A pidfd.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens a pidfd for a PID.
    ///
    /// # Errors
    /// ESRCH when there is no such process.
    pub fn open(pid: libc::pid_t) -> Result<Self, Errno> {
        // SAFETY: the call takes two integers and makes a descriptor.
        unsafe { made(libc::syscall(libc::SYS_pidfd_open, pid, 0)) }.map(Self)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// ESRCH when the process is gone.
    pub fn signal(&self, signal: libc::c_int) -> Result<(), Errno> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a null siginfo is allowed and means what kill(2) would send.
        done(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, no_info, 0) })
    }

    /// Waits until the process has ended; false if it has not after `timeout`.
    pub fn wait_end(&self, timeout: Duration) -> bool {
        self.wait(PollFlags::POLLIN, timeout)
    }

    /// Waits until its parent has reaped it; false if it has not after `timeout`, or before Linux 6.9.
    pub fn wait_reaped(&self, timeout: Duration) -> bool {
        // poll(2) reports POLLHUP without being asked.
        self.wait(PollFlags::empty(), timeout)
    }

    fn wait(&self, events: PollFlags, timeout: Duration) -> bool {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.0.as_fd(), events)];
        loop {
            match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => {}
                result => return result.is_ok_and(|ready| ready > 0),
            }
        }
    }
}

impl From<OwnedFd> for Pidfd {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
