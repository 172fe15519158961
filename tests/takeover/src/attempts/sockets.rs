//! Sockets: of the host, and to pass descriptors by.

use std::ffi::CStr;

use super::Attempt;
use crate::call::{Outcome, at, attempt, attempt_descriptor, call, close, with_any_descriptor};

/// The name of an abstract UNIX socket of the host, on which the test listens.
pub const ABSTRACT_SOCKET: &[u8] = b"stockade-takeover";

pub const SOCKETS: &[Attempt] = &[
    ("make a UNIX socket", || socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)),
    ("make a UNIX datagram socket", || socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)),
    ("make a TCP socket", || socket(libc::AF_INET, libc::SOCK_STREAM, 0)),
    ("make a UDP socket", || socket(libc::AF_INET, libc::SOCK_DGRAM, 0)),
    ("make an IPv6 socket", || socket(libc::AF_INET6, libc::SOCK_STREAM, 0)),
    ("make a raw socket", || socket(libc::AF_INET, libc::SOCK_RAW, 1)),
    ("make a packet socket", || socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
    ("make a netlink socket", || socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)),
    ("make a netlink socket of audit", || socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT)),
    ("make a vsock socket", || socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    ("make a socket of the kernel's ciphers", || socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ("make a pair of sockets", || {
        let mut pair = [0i32; 2];
        attempt(
            libc::SYS_socketpair,
            &[
                libc::AF_UNIX as libc::c_long,
                libc::SOCK_STREAM as libc::c_long,
                0,
                &raw mut pair as libc::c_long,
            ],
        )
    }),
    ("connect to the host's abstract socket", connect_abstract),
    ("connect to the host's init", || connect_path(c"/run/systemd/private")),
    ("send a descriptor", send_descriptor),
    ("listen", || with_any_descriptor(|socket| attempt(libc::SYS_listen, &[socket, 1]))),
    ("bind", || {
        let address = unix_address(b"\0taken");
        with_any_descriptor(|socket| attempt(libc::SYS_bind, &[socket, at(&address), 8]))
    }),
];

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> Outcome {
    attempt_descriptor(
        libc::SYS_socket,
        &[family.into(), (kind | libc::SOCK_CLOEXEC).into(), protocol.into()],
    )
}

fn unix_address(path: &[u8]) -> libc::sockaddr_un {
    let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = *from as libc::c_char;
    }
    address
}

fn connect(address: &libc::sockaddr_un, length: usize) -> Outcome {
    let kind = (libc::SOCK_STREAM | libc::SOCK_CLOEXEC).into();
    let socket = call(libc::SYS_socket, &[libc::AF_UNIX.into(), kind, 0])?;
    let outcome = attempt(libc::SYS_connect, &[socket, at(address), length as libc::c_long]);
    close(socket);
    outcome
}

fn connect_abstract() -> Outcome {
    let name = [b"\0", ABSTRACT_SOCKET].concat();
    connect(&unix_address(&name), 2 + name.len())
}

fn connect_path(path: &CStr) -> Outcome {
    connect(&unix_address(path.to_bytes()), size_of::<libc::sockaddr_un>())
}

/// Sends a descriptor to whoever is at the other end of a socket that is open.
fn send_descriptor() -> Outcome {
    let byte = [0u8; 1];
    let data = libc::iovec { iov_base: at(&byte) as *mut libc::c_void, iov_len: 1 };
    // A header of 16 bytes, level SOL_SOCKET, type SCM_RIGHTS, and one descriptor: this process's own null.
    let control: [u64; 3] = [20, (libc::SCM_RIGHTS as u64) << 32 | libc::SOL_SOCKET as u64, 0];
    // SAFETY: all zero is a message without an address.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw const data as *mut libc::iovec;
    message.msg_iovlen = 1;
    message.msg_control = at(&control) as *mut libc::c_void;
    message.msg_controllen = size_of_val(&control);
    with_any_descriptor(|socket| {
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT).into();
        attempt(libc::SYS_sendmsg, &[socket, at(&message), flags])
    })
}
