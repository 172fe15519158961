//! clone3(2), as a fork: the child has a copy of everything.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};

use crate::pidfd::Pidfd;

/// The last field of the arguments names a cgroup; libc's constant has too few bits.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// How a child is made.
#[derive(Clone, Copy, Debug)]
pub struct Fork<'a> {
    /// `CLONE_NEW*`: its namespaces.
    pub namespaces: libc::c_int,
    /// The directory of the cgroup that it begins in; `None` for the caller's.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether its parent is the caller's parent, which then also gets the signal of its end.
    pub is_sibling: bool,
}

/// Which of the two processes returns.
#[derive(Debug)]
pub enum Forked {
    /// The caller; the child has this PID in the caller's namespace.
    Parent(libc::pid_t, Pidfd),
    /// The new process.
    Child,
}

impl From<Forked> for ForkResult {
    fn from(forked: Forked) -> Self {
        match forked {
            Forked::Parent(pid, _) => Self::Parent { child: Pid::from_raw(pid) },
            Forked::Child => Self::Child,
        }
    }
}

impl Fork<'_> {
    /// Forks.
    ///
    /// # Errors
    /// Those of clone3(2).
    ///
    /// # Safety
    /// The process has one thread, or else the child may find another thread's lock held for ever. The child does not unwind
    /// out of what the caller was doing.
    pub unsafe fn fork(self) -> Result<Forked, Errno> {
        let mut pidfd: RawFd = -1;
        // SAFETY: the structure is plain numbers, for all of which 0 means "unused".
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        // Namespace flags have 32 bits, and the sign bit is not one of them.
        args.flags = u64::from(self.namespaces as u32) | libc::CLONE_PIDFD as u64;
        args.pidfd = &raw mut pidfd as u64;
        if self.is_sibling {
            args.flags |= libc::CLONE_PARENT as u64;
        } else {
            args.exit_signal = libc::SIGCHLD as u64;
        }
        if let Some(cgroup) = self.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
        // SAFETY: without CLONE_VM the child has its own copy of the memory and needs no stack of its own; the size is that
        // of the structure, and `pidfd` outlives the call. What else a child must heed is this function's own contract.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
        match Errno::result(pid)? {
            0 => Ok(Forked::Child),
            pid => {
                // SAFETY: clone3 has stored a new descriptor here, and nobody else has it.
                let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
                // PIDs have 32 bits.
                Ok(Forked::Parent(pid as libc::pid_t, Pidfd::from(pidfd)))
            }
        }
    }
}
