//! sd_notify(3) for a container: what it sends to the socket in the guest is passed on to the host's `NOTIFY_SOCKET`.
//!
//! The guest is hostile, and the service manager trusts the relay's datagrams as the service's own: only assignments
//! about the service's state are passed on, in their order. PIDs, descriptors and clocks of the guest mean nothing on
//! the host.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
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
    /// Connects to the socket that the caller's own environment names, or that the caller has put into the bundle and mounted
    /// into the container (podman does), if somebody listens there. It may lie anywhere, so this comes before the relay's root
    /// changes.
    pub fn of_caller(spec: &Spec, bundle: &Path) -> Option<Self> {
        let of_environment = env::var_os(VARIABLE).filter(|name| !name.is_empty());
        let (name, connected) = match of_environment {
            Some(name) => (PathBuf::from(&name), connect(name.as_bytes())),
            None => {
                let path = mounted(spec, bundle)?;
                let connected = connect_beneath(bundle, &path);
                (bundle.join(path), connected)
            }
        };
        if let Err(cause) = &connected {
            tracing::warn!(
                "{VARIABLE} is not passed to the container: nothing answers at {}: {cause}",
                name.display()
            );
        }
        connected.ok().map(Self)
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The socket on the host that the name in the container's own environment would mean if the container ran on the host.
/// The image sets that environment too, and the pod's author chooses volumes: so the socket counts only if it is in a
/// directory of the bundle, which only the caller fills. The path is relative to the bundle.
fn mounted(spec: &Spec, bundle: &Path) -> Option<PathBuf> {
    let env = spec.process().as_ref()?.env().as_ref()?;
    let inside = env.iter().rev().find_map(|entry| entry.strip_prefix(VARIABLE)?.strip_prefix('='))?;
    spec.mounts().iter().flatten().rev().find_map(|mount| {
        let rest = Path::new(inside).strip_prefix(mount.destination()).ok()?;
        let mut components = rest.components();
        let (Some(Component::Normal(name)), None) = (components.next(), components.next()) else {
            return None;
        };
        let source = mount.source().as_ref()?;
        let (parent, directory) = (source.parent()?.canonicalize().ok()?, Path::new(source.file_name()?));
        let is_in_bundle = bundle.canonicalize().is_ok_and(|bundle| bundle == parent);
        (is_in_bundle && directory != Path::new("rootfs")).then(|| directory.join(name))
    })
}

/// Connects to a socket at a path below a directory, which has no links in it.
fn connect_beneath(directory: &Path, path: &Path) -> io::Result<UnixDatagram> {
    let directory = open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let socket = openat2(directory, path, how)?;
    connect(format!("/proc/self/fd/{}", socket.as_raw_fd()).as_bytes())
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

/// The relay's side, which sends the container's notifications.
#[derive(Debug)]
pub(crate) struct Notifier {
    socket: UnixDatagram,
    /// The relay's PID as the service manager knows it.
    main_pid: String,
}

impl Notifier {
    /// Takes a connected socket. `/proc` must still be the host's.
    ///
    /// # Errors
    /// When this process's PID on the host cannot be read.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let main_pid = fs::read_link("/proc/self")?.display().to_string();
        Ok(Self { socket: socket.into(), main_pid })
    }

    /// Passes on what a datagram of the guest says about the service. A datagram that the host does not take at once is
    /// lost, because the relay never waits.
    pub fn pass_on(&self, datagram: &[u8]) {
        if let Some(text) = for_host(datagram, &self.main_pid) {
            let _ = self.socket.send(text.as_bytes());
        }
    }
}

/// The datagram for the host; `None` if no part of it is for the host.
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
