//! clone3(2), as a fork: the child has a copy of everything.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::{
    errno::Errno,
    sched::CloneFlags,
    unistd::{ForkResult, Pid},
};

/// The last argument names a cgroup; libc's constant has too few bits.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Which of the two processes returns.
pub enum Fork {
    /// The caller; the child has this PID in the caller's namespace.
    Parent(Pid),
    /// The new process.
    Child,
}

impl From<ForkResult> for Fork {
    fn from(result: ForkResult) -> Self {
        match result {
            ForkResult::Parent { child } => Self::Parent(child),
            ForkResult::Child => Self::Child,
        }
    }
}

/// Forks into new namespaces (`CLONE_NEW*`) and the cgroup whose directory is `cgroup`.
///
/// # Safety
/// The process must be single-threaded, or else the child may find another thread's lock held for ever.
pub unsafe fn fork_into(namespaces: CloneFlags, cgroup: impl AsFd) -> Result<Fork, Errno> {
    // SAFETY: the caller's promise is the same.
    unsafe { fork(namespaces.bits() as u64, libc::SIGCHLD as u64, cgroup) }
}

/// The same, but the child's parent is the caller's.
///
/// # Safety
/// As for [`fork_into`].
pub unsafe fn fork_sibling_into(namespaces: CloneFlags, cgroup: impl AsFd) -> Result<Fork, Errno> {
    // The signal at its end is then the caller's own.
    // SAFETY: the caller's promise is the same.
    unsafe { fork(namespaces.bits() as u64 | libc::CLONE_PARENT as u64, 0, cgroup) }
}

/// # Safety
/// As for [`fork_into`].
unsafe fn fork(flags: u64, exit_signal: u64, cgroup: impl AsFd) -> Result<Fork, Errno> {
    let cgroup: RawFd = cgroup.as_fd().as_raw_fd();
    // SAFETY: the structure is plain numbers, for all of which 0 means "unused".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | CLONE_INTO_CGROUP;
    args.exit_signal = exit_signal;
    args.cgroup = cgroup as u64;
    // SAFETY: without CLONE_VM the child has its own copy of the memory and needs no stack of its own; the
    // size is that of the structure. What else a child must heed is this function's own contract.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match Errno::result(pid)? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(Pid::from_raw(pid as i32))),
    }
}
