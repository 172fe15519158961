//! The netlink socket for requests to the kernel.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};
use stockade_sys::netlink::{HEADER, Message};

/// Size of the buffer for an acknowledgement, in bytes; it quotes a request that failed.
const ANSWER: usize = 16 << 10;

/// A NETLINK_ROUTE socket.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens a socket.
    pub fn open() -> Result<Self, Errno> {
        let protocol = SockProtocol::NetlinkRoute;
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).map(Self)
    }

    /// Sends a request and waits for its acknowledgement.
    pub fn ask(&self, request: Message) -> Result<(), Errno> {
        send(self.0.as_raw_fd(), &request.finish(0), MsgFlags::empty())?;
        let mut answer = vec![0; ANSWER];
        loop {
            match recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                received => return acknowledged(&answer[..received?]),
            }
        }
    }
}

/// Reads an acknowledgement: NLMSG_ERROR with an errno, negative or zero.
fn acknowledged(answer: &[u8]) -> Result<(), Errno> {
    let field = |at: usize| answer.get(at..at + 4)?.first_chunk::<4>();
    let kind =
        answer.get(4..6).and_then(|bytes| bytes.first_chunk::<2>()).map(|bytes| u16::from_ne_bytes(*bytes));
    match (kind.map(i32::from), field(HEADER).map(|bytes| i32::from_ne_bytes(*bytes))) {
        (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(errno)) => Err(Errno::from_raw(errno.wrapping_neg())),
        _ => Err(Errno::EPROTO),
    }
}
