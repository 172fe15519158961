//! Descriptors that come with the bytes of a connection (unix(7), SCM_RIGHTS).

use std::{
    io, mem,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    ptr,
};

/// Most descriptors that may come with the bytes of one read, and that Linux lets a message have.
const MAX: usize = 253;

/// Room for one control message of as many descriptors, and for its header, in words: control messages are aligned to them.
const CONTROL_WORDS: usize = words(MAX);

const fn words(descriptors: usize) -> usize {
    2 + descriptors.div_ceil(2)
}

/// Reads what the connection has into `bytes` and appends the descriptors that came with it, `most` or 253 of them at most.
/// 0 is the end.
///
/// # Errors
/// Those of recvmsg(2), or `InvalidData` where there were more descriptors: none is kept then.
pub fn receive(
    stream: &UnixStream,
    bytes: &mut [u8],
    most: usize,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let most = most.min(MAX);
    let mut control = [0u64; CONTROL_WORDS];
    let mut buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero is a valid msghdr: no name, no buffers, no control data.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut buffer;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = words(most) * mem::size_of::<u64>();
    // SAFETY: the message points to two buffers that are valid for their lengths.
    let length = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has just filled the message in.
    let mut received = unsafe { rights(&message) };
    // What did not fit is not here: the kernel has closed it.
    if message.msg_flags & libc::MSG_CTRUNC != 0 || received.len() > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors than any request takes"));
    }
    descriptors.append(&mut received);
    Ok(length)
}

/// Takes ownership of the descriptors in a received message.
///
/// # Safety
/// recvmsg(2) has filled the message in, and this is called once for it.
unsafe fn rights(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut received = Vec::new();
    // SAFETY: the header is the kernel's, as are those that follow.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so it is a whole header.
        let libc::cmsghdr { cmsg_len, cmsg_level, cmsg_type, .. } = unsafe { ptr::read_unaligned(header) };
        if (cmsg_level, cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: an empty message's length is a constant; the data begins after the header.
            let (empty, data) = unsafe { (libc::CMSG_LEN(0) as usize, libc::CMSG_DATA(header)) };
            let count = cmsg_len.saturating_sub(empty) / mem::size_of::<RawFd>();
            for index in 0..count {
                // SAFETY: the kernel has written as many descriptors, which it has made for this process and which
                // nobody else knows of.
                received.push(unsafe {
                    OwnedFd::from_raw_fd(ptr::read_unaligned(data.cast::<RawFd>().add(index)))
                });
            }
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    received
}
