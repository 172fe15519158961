//! Docker's resolver, which is at 127.0.0.11 on the host's side of the pod's network namespace only.
//!
//! ```text
//!  container ── UDP 127.0.0.11:53 ──▶ (sk_lookup) socket of the agent ──▶ one TCP query each ─┐
//!  container ── TCP 127.0.0.11:53 ──▶ (sk_lookup) listener of the agent ──────────────────────┴─▶ vsock ──▶ host
//! ```
//!
//! The port itself stays free, as on a host, so that a container can be a name server. An answer to a datagram comes from
//! a raw socket, because a socket that is bound elsewhere cannot send it from that port.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket},
};
use stockade_sys::sk_lookup::{self, Destination, Local};

use crate::error::{Context, Result, errno_of};

/// The address of Docker's resolver.
const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53);

/// Longest UDP datagram of IPv4, in bytes.
const DATAGRAM_LIMIT: usize = 65_507;

/// Longest answer for a client that names no limit, in bytes (RFC 1035, 2.3.4).
const DEFAULT_LIMIT: usize = 512;

/// Length of a message's header (RFC 1035, 4.1.1), and the offset of its flags, in bytes.
const HEADER: usize = 12;
const FLAGS: usize = 2;

/// The flag that says that the answer was too long for the client.
const TRUNCATED: u8 = 1 << 1;

/// Type of the record with the longest answer that a client accepts (RFC 6891, 6.1.2).
const OPT: u16 = 41;

/// The sockets to which queries come.
#[derive(Debug)]
pub struct Resolver {
    /// The non-blocking listener for TCP.
    pub listener: OwnedFd,
    datagrams: UdpSocket,
    answers: OwnedFd,
    _program: OwnedFd,
}

/// A query that came as a datagram.
#[derive(Debug)]
pub struct Datagram {
    /// The message.
    pub query: Vec<u8>,
    /// The address of the client.
    pub client: SocketAddrV4,
}

impl Resolver {
    /// Listens at the resolver's address in this network namespace.
    pub fn listen() -> Result<Self> {
        Self::try_listen().or_internal(|| format!("listen for queries to {ADDRESS}"))
    }

    fn try_listen() -> Result<Self, Errno> {
        let open = || {
            let (listener, datagrams) =
                (TcpListener::bind((*ADDRESS.ip(), 0))?, UdpSocket::bind((*ADDRESS.ip(), 0))?);
            listener.set_nonblocking(true)?;
            datagrams.set_nonblocking(true)?;
            Ok((listener, datagrams, File::open("/proc/self/ns/net")?))
        };
        let (listener, datagrams, namespace) = open().map_err(|cause| errno_of(&cause))?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // It takes packets with their headers (raw(7)).
        let answers = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw)?;
        let to = |protocol| Destination {
            protocol,
            address: Local::Address4(ADDRESS.ip().octets()),
            port: Some(ADDRESS.port()),
        };
        let steered = [(to(libc::IPPROTO_UDP), datagrams.as_fd()), (to(libc::IPPROTO_TCP), listener.as_fd())];
        let program = sk_lookup::attach(namespace.as_fd(), &steered)?;
        Ok(Self { listener: listener.into(), datagrams, answers, _program: program })
    }

    /// The socket to which datagrams come.
    pub fn datagrams(&self) -> &impl AsFd {
        &self.datagrams
    }

    /// The next query that came as a datagram; `None` when there is none.
    pub fn receive(&self) -> Option<Datagram> {
        let mut query = vec![0; DATAGRAM_LIMIT];
        loop {
            match self.datagrams.recv_from(&mut query) {
                Ok((length, SocketAddr::V4(client))) => {
                    query.truncate(length);
                    return Some(Datagram { query, client });
                }
                // The socket has no datagrams of another family.
                Ok(_) => {}
                Err(cause) if errno_of(&cause) == Errno::EINTR => {}
                Err(_) => return None,
            }
        }
    }

    /// Sends an answer from the resolver's address.
    pub fn send(&self, answer: &[u8], client: SocketAddrV4) {
        let packet = packet(answer, client);
        // As any datagram, it may be lost.
        let _ = sendto(self.answers.as_raw_fd(), &packet, &SockaddrIn::from(client), MsgFlags::empty());
    }
}

/// A datagram with its headers (RFC 791, 3.1, whose length and checksum the kernel fills in; RFC 768). It has no
/// checksum, which the loopback interface does not need.
fn packet(answer: &[u8], client: SocketAddrV4) -> Vec<u8> {
    let length = (8 + answer.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, libc::IPPROTO_UDP as u8, 0, 0];
    packet.extend(ADDRESS.ip().octets());
    packet.extend(client.ip().octets());
    packet.extend(ADDRESS.port().to_be_bytes());
    packet.extend(client.port().to_be_bytes());
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(answer);
    packet
}

/// The answer in a length that its client accepts: the whole answer, or only the question, with the flag that makes the
/// client ask again by TCP.
pub fn fit(query: &[u8], mut answer: Vec<u8>) -> Vec<u8> {
    if answer.len() <= limit(query).min(DATAGRAM_LIMIT) {
        return answer;
    }
    let end = question_end(&answer).unwrap_or(HEADER);
    answer.truncate(end);
    answer[FLAGS] |= TRUNCATED;
    // The message has one question or none, and no records.
    answer[4..HEADER].fill(0);
    answer[5] = u8::from(end > HEADER);
    answer
}

/// The longest answer that the client accepts, in bytes, by the query's OPT record, which must be its only additional
/// record.
fn limit(query: &[u8]) -> usize {
    let stated = || {
        let mut rest = query.get(question_end(query)?..)?;
        if query.get(6..HEADER)? != [0, 0, 0, 0, 0, 1] {
            return None;
        }
        // The name of the root.
        rest = rest.strip_prefix(&[0])?;
        let word = |at: usize| Some(u16::from_be_bytes([*rest.get(at)?, *rest.get(at + 1)?]));
        (word(0)? == OPT).then_some(())?;
        word(2).map(usize::from)
    };
    stated().unwrap_or(DEFAULT_LIMIT).max(DEFAULT_LIMIT)
}

/// The offset of the end of a message's first question, if it has one.
fn question_end(message: &[u8]) -> Option<usize> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            // This is a pointer to an earlier name, but there is no earlier name.
            length if length > 63 => return None,
            length => at += 1 + usize::from(length),
        }
    }
    let end = at + 5;
    (end <= message.len()).then_some(end)
}

#[cfg(test)]
#[path = "resolver_test.rs"]
mod tests;
