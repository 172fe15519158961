//! The kernel's messages that something has changed in a network namespace. An inventory then shows what has changed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// The groups of messages, `RTMGRP_*`: links, neighbours, and addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400;

/// A socket that receives messages about changes.
#[derive(Debug)]
pub struct Events(OwnedFd);

impl Events {
    /// Listens in the calling thread's network namespace.
    ///
    /// # Errors
    /// socket(2)'s or bind(2)'s.
    pub fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self(socket))
    }

    /// Waits until something has changed, and discards all messages that have come until then.
    ///
    /// # Errors
    /// recv(2)'s.
    pub fn wait(&self) -> io::Result<()> {
        self.receive(MsgFlags::empty())?;
        self.forget()
    }

    /// Discards all messages that have come until now.
    ///
    /// # Errors
    /// recv(2)'s.
    pub fn forget(&self) -> io::Result<()> {
        loop {
            match self.receive(MsgFlags::MSG_DONTWAIT) {
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                received => received?,
            }
        }
    }

    /// Receives a message, which may be cut off, because its content is not read.
    fn receive(&self, flags: MsgFlags) -> io::Result<()> {
        loop {
            match recv(self.0.as_raw_fd(), &mut [0; 16], flags) {
                Err(Errno::EINTR) => {}
                // There were more messages than the socket can hold.
                Ok(_) | Err(Errno::ENOBUFS) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
