//! Descriptors that cross a UNIX socket with the bytes of a message (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Largest number of descriptors in one message: Linux's own limit (SCM_MAX_FD).
pub const MAX_DESCRIPTORS: usize = 253;

/// Sends bytes and, with the first of them, descriptors: at most [`MAX_DESCRIPTORS`].
///
/// # Errors
/// Those of sendmsg(2); `WriteZero` where not all bytes were taken.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control: &[ControlMessage<'_>] = if descriptors.is_empty() { &[] } else { &rights };
    let socket = socket.as_fd().as_raw_fd();
    let sent = loop {
        match sendmsg::<()>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => break sent?,
        }
    };
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Reads from the socket into `bytes`, appends the descriptors that came with the bytes, at most `max`, and returns the
/// number of bytes; 0 is the end.
///
/// # Errors
/// Those of recvmsg(2), or `InvalidData` where there were more descriptors: none is kept then.
pub fn receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    max: usize,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    receive_with(socket, bytes, max, descriptors, MsgFlags::empty())
}

/// As [`receive`], without waiting: `None` if the socket has nothing.
///
/// # Errors
/// As [`receive`].
pub fn try_receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    max: usize,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<Option<usize>> {
    match receive_with(socket, bytes, max, descriptors, MsgFlags::MSG_DONTWAIT) {
        Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Ok(None),
        received => received.map(Some),
    }
}

fn receive_with(
    socket: impl AsFd,
    bytes: &mut [u8],
    max: usize,
    descriptors: &mut Vec<OwnedFd>,
    flags: MsgFlags,
) -> io::Result<usize> {
    let mut control = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(bytes)];
    let socket = socket.as_fd().as_raw_fd();
    let message = loop {
        match recvmsg::<()>(socket, &mut parts, Some(&mut control), flags | MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    let mut received = Vec::new();
    // All control data fits, so that nothing was cut off.
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just made these descriptors for this process, and nobody else has them.
            received.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    if received.len() > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors than any message takes"));
    }
    descriptors.append(&mut received);
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_arrive_with_their_bytes_and_too_many_are_closed() {
        let (one, other) = UnixStream::pair().unwrap();
        let numbers = [one.as_raw_fd(); 3];
        send(&one, b"three", &numbers).unwrap();
        let (mut bytes, mut descriptors) = ([0; 8], Vec::new());
        assert_eq!(receive(&other, &mut bytes, 3, &mut descriptors).unwrap(), 5);
        assert_eq!((&bytes[..5], descriptors.len()), (&b"three"[..], 3));
        send(&one, b"x", &numbers).unwrap();
        let refused = receive(&other, &mut bytes, 2, &mut descriptors).unwrap_err();
        assert_eq!((refused.kind(), descriptors.len()), (io::ErrorKind::InvalidData, 3));
        drop((one, descriptors));
        assert_eq!(receive(&other, &mut bytes, 2, &mut Vec::new()).unwrap(), 0);
    }
}
