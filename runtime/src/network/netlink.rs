//! A blocking rtnetlink(7) socket.
//!
//! A start takes a few requests in a process that soon ends: an asynchronous client with its runtime would cost more than
//! they do. Answers of the kernel are read attribute by attribute, so that a newer kernel does not make this fail. The
//! owner of the namespace decides how long the answers are, so they are bounded.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{ErrorBuffer, NetlinkBuffer, NlaBuffer, NlasIterator};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use stockade_protocol::network::INTERFACE_NAME;
use stockade_sys::netlink::Message;

/// Size of a buffer for the largest part of an answer, in bytes.
const PART: usize = 64 << 10;

/// Longest answer, in bytes.
const LIMIT: usize = 4 << 20;

/// How often a list is asked for again because it has changed while the kernel sent it.
const ATTEMPTS: usize = 10;

const NLM_F_DUMP_INTR: u16 = 0x10;

/// Length of `struct nlattr`.
const ATTRIBUTE: usize = 4;

/// The argument of ioctl(2) for the interface with this name.
pub fn named(name: &str, value: libc::__c_anonymous_ifr_ifru) -> libc::ifreq {
    let mut request = libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: value };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes().take(INTERFACE_NAME)) {
        *slot = byte as libc::c_char;
    }
    request
}

/// A socket of the network namespace in which it was opened, whoever uses it later.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// socket(2)'s.
    pub fn open() -> io::Result<Self> {
        Self::open_of(SockProtocol::NetlinkRoute)
    }

    /// As [`Self::open`], for another netlink protocol.
    ///
    /// # Errors
    /// socket(2)'s.
    pub fn open_of(protocol: SockProtocol) -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The number of the interface with this name.
    ///
    /// # Errors
    /// ENODEV where there is none.
    pub fn index(&self, name: &str) -> io::Result<u32> {
        let mut request = named(name, libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 });
        // SAFETY: SIOCGIFINDEX reads and writes one ifreq, which `request` is.
        match unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCGIFINDEX, &raw mut request) } {
            // SAFETY: the kernel has written this member.
            0 => Ok(unsafe { request.ifr_ifru.ifru_ifindex } as u32),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn send(&mut self, request: Message) -> io::Result<()> {
        self.sequence += 1;
        let bytes = request.finish(self.sequence);
        let sent = send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => {}
                Ok(length) if length > buffer.len() => return Err(too_much()),
                received => return Ok(received?),
            }
        }
    }

    /// Sends a request and waits for the acknowledgement.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ask(&mut self, mut request: Message) -> io::Result<()> {
        request.add_flags(libc::NLM_F_ACK);
        self.send(request)?;
        let mut buffer = vec![0; PART];
        let length = self.receive(&mut buffer)?;
        let mut outcome = Err(malformed());
        messages(&buffer[..length], |kind, _, payload| {
            if kind == libc::NLMSG_ERROR as u16 {
                outcome = failure(payload);
            }
        })?;
        outcome
    }

    /// Makes the kernel list something; returns the payload of each message of the answer.
    ///
    /// # Errors
    /// The kernel's; `FileTooLarge` where there is too much.
    pub fn list(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..ATTEMPTS {
            self.send(Message::new(kind, libc::NLM_F_DUMP, body))?;
            if let Some(list) = self.receive_list()? {
                return Ok(list);
            }
        }
        Err(io::Error::other("it changes all the time"))
    }

    /// Receives a list; `None` if it has changed meanwhile.
    fn receive_list(&self) -> io::Result<Option<Vec<Vec<u8>>>> {
        let mut buffer = vec![0; PART];
        let mut list = Vec::new();
        let mut total = 0;
        let mut end = None;
        let mut is_whole = true;
        while end.is_none() {
            let length = self.receive(&mut buffer)?;
            total += length;
            if total > LIMIT {
                return Err(too_much());
            }
            messages(&buffer[..length], |kind, flags, payload| {
                is_whole &= flags & NLM_F_DUMP_INTR == 0;
                match i32::from(kind) {
                    libc::NLMSG_DONE => end = Some(Ok(())),
                    libc::NLMSG_ERROR => end = Some(failure(payload)),
                    _ => list.push(payload.to_vec()),
                }
            })?;
        }
        end.unwrap_or(Ok(()))?;
        Ok(is_whole.then_some(list))
    }
}

fn too_much() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "it holds more than stockade takes over")
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is malformed")
}

/// Calls `take` with the type, flags and payload of every message.
fn messages(mut bytes: &[u8], mut take: impl FnMut(u16, u16, &[u8])) -> io::Result<()> {
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes).map_err(|_| malformed())?;
        take(message.message_type(), message.flags(), message.payload());
        let next = (message.length() as usize).next_multiple_of(4);
        bytes = bytes.get(next..).unwrap_or_default();
    }
    Ok(())
}

/// The result in an NLMSG_ERROR, which is an acknowledgement if the error is 0.
fn failure(payload: &[u8]) -> io::Result<()> {
    let error = ErrorBuffer::new_checked(payload).map_err(|_| malformed())?;
    match error.code() {
        None => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.get().wrapping_neg())),
    }
}

/// The attributes of a message.
#[derive(Debug)]
pub struct Attributes<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Attributes<'a> {
    /// Reads attributes; bytes that are not an attribute end the list.
    pub fn read(bytes: &'a [u8]) -> Self {
        let read = |attribute: NlaBuffer<&'a [u8]>| {
            let (kind, end) = (attribute.kind(), usize::from(attribute.length()));
            Some((kind, attribute.into_inner().get(ATTRIBUTE..end)?))
        };
        Self(NlasIterator::new(bytes).map_while(|attribute| attribute.ok().and_then(read)).collect())
    }

    /// The value of the first of this kind.
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.0.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value)
    }

    /// All attributes: their kinds and values.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        self.0.iter().copied()
    }

    /// The value of an attribute as a number.
    pub fn number(&self, kind: u16) -> Option<u32> {
        self.get(kind).and_then(number)
    }

    /// The value of an attribute as an address of four or sixteen bytes.
    pub fn address(&self, kind: u16) -> Option<IpAddr> {
        self.get(kind).and_then(address)
    }

    /// The value of an attribute as a string, with or without its NUL.
    pub fn string(&self, kind: u16) -> Option<String> {
        let bytes = self.get(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8(bytes[..end].to_vec()).ok()
    }
}

/// A number of four bytes.
pub fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// An address of four or sixteen bytes.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into())
}

#[cfg(test)]
#[path = "netlink_test.rs"]
mod tests;
