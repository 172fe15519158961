//! The agent's sockets: it listens for the host, and reports once that it is ready.

use std::{
    fs::File,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc::{VMADDR_CID_ANY, VMADDR_CID_HOST},
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept4, bind, connect, getpeername,
        listen as listen_on, socket,
    },
};
use stockade_protocol::{
    agent::{AGENT_PORT, MAGIC, OLDEST_VERSION, READY_PORT, Ready, VERSION},
    frame,
};

use crate::{
    boot,
    error::{Context, ErrorKind, Result, error},
};

/// Largest number of connections that wait to be accepted.
const BACKLOG: i32 = 128;

fn vsock(flags: SockFlag) -> Result<OwnedFd> {
    socket(AddressFamily::Vsock, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None)
        .or_internal(|| "open a vsock socket".to_owned())
}

/// The non-blocking socket on which the host reaches the agent.
pub fn listen() -> Result<OwnedFd> {
    listen_on_port(AGENT_PORT, SockFlag::SOCK_NONBLOCK)
}

/// A socket that listens on this port.
pub fn listen_on_port(port: u32, flags: SockFlag) -> Result<OwnedFd> {
    let socket = vsock(flags)?;
    let address = VsockAddr::new(VMADDR_CID_ANY, port);
    bind(socket.as_raw_fd(), &address)
        .and_then(|()| Backlog::new(BACKLOG))
        .and_then(|backlog| listen_on(&socket, backlog))
        .or_internal(|| format!("listen on vsock port {port}"))?;
    Ok(socket)
}

/// Tells the host that the agent listens.
pub fn report_ready(entry_tsc: u64) -> Result<()> {
    let socket = vsock(SockFlag::empty())?;
    connect(socket.as_raw_fd(), &VsockAddr::new(VMADDR_CID_HOST, READY_PORT))
        .or_internal(|| format!("connect to the host's vsock port {READY_PORT}"))?;
    let ready = Ready {
        magic: MAGIC,
        oldest_version: OLDEST_VERSION,
        version: VERSION,
        kernel_release: boot::kernel_release()?,
        entry_tsc,
    };
    frame::write(&mut File::from(socket), &ready)
        .map_err(|cause| error(ErrorKind::Internal, format!("report to the host: {cause}")))
}

/// The next connection of the host, non-blocking; `None` when there is none left.
pub fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    loop {
        let socket = match accept4(listener.as_raw_fd(), SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC) {
            // SAFETY: accept4 has just made this descriptor, and nobody else knows it.
            Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
            Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
            Err(_) => return None,
        };
        // Workloads reach this port too, by the guest's own CID; they are not the host.
        let peer = getpeername::<VsockAddr>(socket.as_raw_fd());
        if peer.is_ok_and(|address| address.cid() == VMADDR_CID_HOST) {
            return Some(socket);
        }
    }
}
