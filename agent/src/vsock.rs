//! The agent's sockets: it listens for the host, and reports once that it is ready.

use std::{
    fs::File,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc::{self, VMADDR_CID_ANY, VMADDR_CID_HOST},
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
    wait_for_ever(&socket).or_internal(|| "set the time limit of a vsock connection".to_owned())?;
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

/// Leaves it to the host how long a connection may take: after its own two seconds the kernel gives up, which may be too soon on a
/// busy host.
fn wait_for_ever(socket: &OwnedFd) -> nix::Result<()> {
    /// Of linux/vm_sockets.h.
    const SO_VM_SOCKETS_CONNECT_TIMEOUT: libc::c_int = 6;
    /// The kernel refuses what it cannot count.
    static LIMIT: libc::timeval = libc::timeval { tv_sec: 24 * 60 * 60, tv_usec: 0 };
    // SAFETY: the kernel reads one timeval of the length that is passed with it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::AF_VSOCK,
            SO_VM_SOCKETS_CONNECT_TIMEOUT,
            (&raw const LIMIT).cast(),
            size_of::<libc::timeval>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
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
