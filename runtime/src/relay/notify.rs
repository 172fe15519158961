//! sd_notify(3) for a container: what it says to the socket in the guest goes on to the host's `NOTIFY_SOCKET`.
//!
//! The guest is hostile, and the service manager trusts the relay's datagrams as the service's own: only what says
//! something about the service's state passes, in the order in which it came. PIDs, descriptors and clocks of the guest
//! mean nothing on the host.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use stockade_protocol::agent::NOTIFY_LIMIT;

use crate::sys::descriptors;

/// The variable that names the service manager's socket.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// The assignments of sd_notify(3) that mean the same on the host as in the guest.
const PASSED: &[&str] = &[
    "READY",
    "RELOADING",
    "STOPPING",
    "STATUS",
    "ERRNO",
    "BUSERROR",
    "VARLINKERROR",
    "EXIT_STATUS",
    "WATCHDOG",
    "WATCHDOG_USEC",
    "EXTEND_TIMEOUT_USEC",
];

/// A connection to the service manager.
#[derive(Debug)]
pub struct NotifySocket(UnixDatagram);

impl NotifySocket {
    /// Connects to the socket that the environment names, or that the caller would have mounted into the container (podman
    /// does), if somebody listens there. It may lie anywhere, so this comes before the relay's root changes.
    pub fn of_caller(spec: &Spec) -> Option<Self> {
        let of_environment = env::var_os(VARIABLE).filter(|name| !name.is_empty());
        let name = of_environment.or_else(|| mounted(spec).map(PathBuf::into_os_string))?;
        let connected = connect(name.as_bytes()).map(Self);
        if let Err(cause) = &connected {
            tracing::warn!(
                "{VARIABLE} is not passed to the container: nothing answers at {}: {cause}",
                name.display()
            );
        }
        connected.ok()
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The socket on the host that the container would find under the name in its own environment, were it on the host.
fn mounted(spec: &Spec) -> Option<PathBuf> {
    let env = spec.process().as_ref()?.env().as_ref()?;
    let inside = env.iter().rev().find_map(|entry| entry.strip_prefix(VARIABLE)?.strip_prefix('='))?;
    spec.mounts().iter().flatten().rev().find_map(|mount| {
        let rest = Path::new(inside).strip_prefix(mount.destination()).ok()?;
        let source = mount.source().as_ref().filter(|source| source.is_absolute())?;
        // A single file as a mount has no rest.
        Some(if rest == Path::new("") { source.clone() } else { source.join(rest) })
    })
}

/// A path, or a name of the abstract namespace after an `@`.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let socket = match name.strip_prefix(b"@") {
        Some(name) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
            socket
        }
        None => descriptors::connect_datagrams_to(Path::new(OsStr::from_bytes(name)))?,
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The relay's side: it speaks for the container.
#[derive(Debug)]
pub(crate) struct Notifier {
    socket: UnixDatagram,
    /// The relay's PID as the service manager knows it.
    main_pid: String,
}

impl Notifier {
    /// Speaks through a connected socket. `/proc` must still be the host's.
    ///
    /// # Errors
    /// When this process's PID on the host cannot be read.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let main_pid = fs::read_link("/proc/self")?.display().to_string();
        Ok(Self { socket: socket.into(), main_pid })
    }

    /// Passes on what a datagram of the guest says about the service. One that the host does not take at once is lost: the
    /// relay waits for nobody.
    pub fn pass_on(&self, datagram: &[u8]) {
        if let Some(text) = for_host(datagram, &self.main_pid) {
            let _ = self.socket.send(text.as_bytes());
        }
    }
}

/// A datagram as the host gets it; `None` where nothing of it is for the host.
fn for_host(datagram: &[u8], main_pid: &str) -> Option<String> {
    let text = str::from_utf8(datagram).ok().filter(|text| text.len() <= NOTIFY_LIMIT)?;
    let mut lines: Vec<String> = text.split('\n').filter(|line| is_passed(line)).map(str::to_owned).collect();
    if lines.iter().any(|line| line == "READY=1") {
        lines.push(format!("MAINPID={main_pid}"));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

pub(crate) fn is_passed(line: &str) -> bool {
    line.split_once('=')
        .is_some_and(|(name, value)| PASSED.contains(&name) && !value.contains(char::is_control))
}

#[cfg(test)]
#[path = "notify_test.rs"]
mod tests;
