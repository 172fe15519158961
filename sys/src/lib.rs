//! The system calls of stockade that no crate in the workspace wraps, each made safe once, for the runtime, the VMM and the
//! agent.
//!
//! What a function does not check is said in its documentation; an errno is the kernel's own, as the manual page of the
//! call lists them.

pub mod bpf;
pub mod capabilities;
pub mod clone;
pub mod descriptors;
pub mod fd_passing;
pub mod landlock;
pub mod mount_api;
pub mod netlink;
pub mod pidfd;
pub mod resolve;
pub mod seccomp;
pub mod sk_lookup;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// The descriptor that a system call has returned.
///
/// # Safety
/// `result` is what a system call has returned that makes a descriptor, and nobody else has it.
unsafe fn made(result: libc::c_long) -> Result<OwnedFd, Errno> {
    // Descriptors are small numbers.
    // SAFETY: the caller's promise.
    Errno::result(result).map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}

/// The result of a system call that returns no value.
fn done(result: libc::c_long) -> Result<(), Errno> {
    Errno::result(result).map(drop)
}
