//! Descriptors beyond stdio that a caller passes on: `--preserve-fds`, and those of socket activation (`LISTEN_FDS`).
//!
//! A descriptor cannot cross into a VM, but a stream of bytes can: what is a pipe, a connected stream socket or a terminal
//! here is a pipe or a socket of the same number there, and the relay copies between the two. Anything else is refused
//! before anything is made.

use std::env;
use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{SockType, UnixAddr, getpeername, getsockopt, sockopt};
use nix::sys::stat::{SFlag, fstat};
use stockade_protocol::container::StreamKind;

use crate::sys::descriptors;

/// Number of the first.
const FIRST: RawFd = 3;

/// How many may be passed on: all connections of one process go to its relay in one message.
const MAX: usize = 100;

/// The variable that tells how many descriptors socket activation has passed.
const LISTEN_FDS: &str = "LISTEN_FDS";

/// Why a descriptor cannot be passed on.
#[derive(Debug, thiserror::Error)]
pub enum PreserveError {
    /// More than [`MAX`].
    #[error(
        "--preserve-fds, {LISTEN_FDS}: {0} descriptors are too many; at most {MAX} can be passed into a VM"
    )]
    TooMany(usize),
    /// Nothing was inherited under this number.
    #[error("--preserve-fds, {LISTEN_FDS}: descriptor {0} is not open")]
    NotOpen(RawFd),
    /// It is no stream.
    #[error(
        "--preserve-fds, {LISTEN_FDS}: descriptor {number} is {kind} ({target}); only pipes, connected stream sockets \
         and terminals can be passed into a VM"
    )]
    NoStream {
        /// Its number.
        number: RawFd,
        /// What it is.
        kind: &'static str,
        /// What /proc/self/fd says.
        target: String,
    },
}

/// The descriptors from 3 on.
#[derive(Debug, Default)]
pub struct Preserved {
    streams: Vec<Stream>,
    /// What the process's environment says about them.
    pub env: Vec<String>,
}

#[derive(Debug)]
struct Stream {
    fd: OwnedFd,
    kind: StreamKind,
}

impl Preserved {
    /// Takes `count` descriptors over.
    ///
    /// # Errors
    /// [`PreserveError`].
    pub fn take(count: u32) -> Result<Self, PreserveError> {
        let count = count as usize;
        if count > MAX {
            return Err(PreserveError::TooMany(count));
        }
        let streams = (FIRST..).take(count).map(take).collect::<Result<_, _>>()?;
        Ok(Self { streams, env: Vec::new() })
    }

    /// Takes over those of socket activation and `count` more, as runc and crun do for a container's init.
    ///
    /// # Errors
    /// [`PreserveError`].
    pub fn take_with_activation(count: u32) -> Result<Self, PreserveError> {
        let activated = activated(&|name| env::var(name).ok());
        let mut preserved = Self::take(count.saturating_add(activated))?;
        if activated > 0 {
            preserved.env = vec![format!("{LISTEN_FDS}={activated}"), "LISTEN_PID=1".to_owned()];
            preserved.env.extend(env::var("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")));
        }
        Ok(preserved)
    }

    /// What each is, for the agent.
    pub fn kinds(&self) -> Vec<StreamKind> {
        self.streams.iter().map(|stream| stream.kind).collect()
    }

    /// The relay's ends: descriptions of its own where there can be, so that nothing blocks and nothing changes for
    /// others who have the same file open.
    ///
    /// # Errors
    /// open(2)'s or dup(2)'s.
    pub fn open_ends(&self) -> io::Result<Vec<StreamEnds>> {
        self.streams.iter().map(Stream::open_ends).collect()
    }
}

/// How many descriptors socket activation has passed to this process. Engines pass a PID of 1, which only the
/// container's init will have; another's PID means that the variables are not meant for this process.
fn activated(variable: &dyn Fn(&str) -> Option<String>) -> u32 {
    let own = std::process::id();
    let pid = variable("LISTEN_PID").map_or(Some(own), |pid| pid.parse().ok());
    if pid != Some(own) && pid != Some(1) {
        return 0;
    }
    variable(LISTEN_FDS).and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn take(number: RawFd) -> Result<Stream, PreserveError> {
    // SAFETY: F_GETFD takes no argument and says only whether there is such a descriptor.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // What closes on exec has not been inherited: it is this process's own.
    if flags < 0 || flags & FdFlag::FD_CLOEXEC.bits() != 0 {
        return Err(PreserveError::NotOpen(number));
    }
    // SAFETY: it is open and was passed to this process by number, so nothing else here owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    match kind(fd.as_fd()) {
        Ok(kind) => Ok(Stream { fd, kind }),
        Err(kind) => {
            let target = fs::read_link(format!("/proc/self/fd/{number}"));
            let target = target.map_or_else(|_| "unknown".to_owned(), |path| path.display().to_string());
            Err(PreserveError::NoStream { number, kind, target })
        }
    }
}

/// How a descriptor can be relayed, or what it is instead.
fn kind(fd: BorrowedFd<'_>) -> Result<StreamKind, &'static str> {
    let mode = fstat(fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()));
    match mode {
        Ok(SFlag::S_IFIFO) => match access(fd) {
            Access::Read => Ok(StreamKind::Input),
            Access::Write => Ok(StreamKind::Output),
            Access::Both => Err("a pipe that is open for both reading and writing"),
        },
        Ok(SFlag::S_IFCHR) if fd.is_terminal() => Ok(match access(fd) {
            Access::Read => StreamKind::Input,
            Access::Write => StreamKind::Output,
            Access::Both => StreamKind::Socket,
        }),
        Ok(SFlag::S_IFSOCK) => socket(fd),
        Ok(SFlag::S_IFREG) => Err("a regular file"),
        Ok(SFlag::S_IFDIR) => Err("a directory"),
        Ok(SFlag::S_IFCHR | SFlag::S_IFBLK) => Err("a device"),
        _ => Err("no stream"),
    }
}

fn socket(fd: BorrowedFd<'_>) -> Result<StreamKind, &'static str> {
    if getsockopt(&fd, sockopt::SockType) != Ok(SockType::Stream) {
        return Err("a socket that is no stream");
    }
    if getsockopt(&fd, sockopt::AcceptConn) == Ok(true) {
        return Err("a listening socket");
    }
    // Whatever the family: an address of another one is an error of its own kind.
    match getpeername::<UnixAddr>(fd.as_raw_fd()) {
        Err(nix::errno::Errno::ENOTCONN) => Err("a socket that is not connected"),
        _ => Ok(StreamKind::Socket),
    }
}

enum Access {
    Read,
    Write,
    Both,
}

fn access(fd: BorrowedFd<'_>) -> Access {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_or(OFlag::O_RDWR, OFlag::from_bits_truncate);
    match flags & OFlag::O_ACCMODE {
        OFlag::O_RDONLY => Access::Read,
        OFlag::O_WRONLY => Access::Write,
        _ => Access::Both,
    }
}

/// The relay's ends of one stream.
#[derive(Debug)]
pub struct StreamEnds {
    /// Where bytes for the guest come from.
    pub source: Option<OwnedFd>,
    /// Where bytes of the guest go.
    pub sink: Option<OwnedFd>,
    /// Source and sink are one socket, whose directions end one by one.
    pub is_socket: bool,
}

impl Stream {
    fn open_ends(&self) -> io::Result<StreamEnds> {
        let reads = self.kind != StreamKind::Output;
        let writes = self.kind != StreamKind::Input;
        let open = |write| descriptors::reopen_nonblocking(self.fd.as_fd(), write);
        Ok(StreamEnds {
            source: reads.then(|| open(false)).transpose()?,
            sink: writes.then(|| open(true)).transpose()?,
            is_socket: self.kind == StreamKind::Socket && !self.fd.is_terminal(),
        })
    }
}

#[cfg(test)]
#[path = "preserve_fds_test.rs"]
mod tests;
