//! Has the kernel close a descriptor in a worker of its own after this process has ended.
//!
//! Who closes the last descriptor of a VM waits until KVM has taken it apart: grace periods of tens of milliseconds, for which
//! nobody needs to wait. An exit of a process waits for what it closes, and whoever waits for the process waits too. The files
//! that are registered with io_uring are closed by a worker of the kernel.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// `struct io_uring_params` (io_uring_setup(2)).
#[repr(C)]
#[derive(Default)]
struct Parameters {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    rest: [u32; 27],
}

/// The ring takes no requests (IORING_SETUP_R_DISABLED).
const DISABLED: u32 = 1 << 6;

/// IORING_REGISTER_FILES.
const REGISTER_FILES: libc::c_uint = 2;

/// A ring of io_uring that does nothing but hold a file. The filters of this process's threads allow none of io_uring's calls,
/// so a guest that has taken the process over cannot use it.
#[derive(Debug)]
pub struct Closer {
    _ring: OwnedFd,
}

impl Closer {
    /// Takes a reference to the file.
    ///
    /// # Errors
    /// Those of io_uring_setup(2) and io_uring_register(2): many hosts switch io_uring off.
    pub fn of(file: &impl AsRawFd) -> io::Result<Self> {
        let mut parameters = Parameters { flags: DISABLED, ..Parameters::default() };
        // SAFETY: the parameters are what the call reads and writes, and outlive it.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters) };
        let ring = i32::try_from(ring).ok().filter(|ring| *ring >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the call has just made the descriptor, for this process alone; it is close-on-exec.
        let ring = unsafe { OwnedFd::from_raw_fd(ring) };
        let files = [file.as_raw_fd()];
        // SAFETY: the call reads one number from the array, which outlives it.
        let registered = unsafe {
            libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), REGISTER_FILES, files.as_ptr(), 1)
        };
        if registered < 0 { Err(io::Error::last_os_error()) } else { Ok(Self { _ring: ring }) }
    }
}

#[cfg(test)]
#[path = "closer_test.rs"]
mod tests;
