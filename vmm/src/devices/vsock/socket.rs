//! Transfers between guest memory and non-blocking sockets, without a copy in between.
//!
//! The calls that are used (readv, writev) cannot carry a descriptor, and no others are made.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixStream,
    },
};

use vm_memory::VolatileSlice;

use crate::virtio::buffers;

/// Largest number of slices in one system call; the rest waits for the next.
const MAX_IOVECS: usize = 64;

/// Writes as much as the socket takes at once, at most [`MAX_IOVECS`] slices.
///
/// # Errors
/// Those of writev(2); `WouldBlock` when the socket's buffer is full.
pub fn send(socket: &UnixStream, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    with_iovecs(slices, |iovecs, count| {
        // SAFETY: the iovecs are of guest memory that stays mapped while `slices` is borrowed; the kernel only reads it, and
        // tolerates that the guest writes to it meanwhile.
        unsafe { libc::writev(socket.as_fd().as_raw_fd(), iovecs, count) }
    })
}

/// Reads what the socket has into at most [`MAX_IOVECS`] slices; 0 is the end of the stream.
///
/// # Errors
/// Those of readv(2); `WouldBlock` when there is nothing to read.
pub fn receive(socket: &UnixStream, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    with_iovecs(slices, |iovecs, count| {
        // SAFETY: the iovecs are of guest memory that stays mapped while `slices` is borrowed, and to which no Rust
        // reference exists.
        unsafe { libc::readv(socket.as_fd().as_raw_fd(), iovecs, count) }
    })
}

fn with_iovecs(
    slices: &[VolatileSlice<'_>],
    call: impl Fn(*const libc::iovec, libc::c_int) -> libc::ssize_t,
) -> io::Result<usize> {
    let mut iovecs = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_IOVECS];
    let count = slices.len().min(MAX_IOVECS);
    for (iovec, slice) in iovecs.iter_mut().zip(slices) {
        *iovec = buffers::iovec(slice);
    }
    loop {
        // At most MAX_IOVECS.
        match usize::try_from(call(iovecs.as_ptr(), count as libc::c_int)) {
            Ok(count) => return Ok(count),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "socket_test.rs"]
mod tests;
