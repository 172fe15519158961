//! Descriptors beyond stdio that a caller passes on: `--preserve-fds`, and those of socket activation (`LISTEN_FDS`).
//!
//! A descriptor cannot cross into a VM, but a stream of bytes can: a pipe, a connected stream socket or a terminal
//! becomes a pipe or a socket of the same number in the guest, and the relay copies between the two. The content of a
//! regular file crosses in the same way, from the descriptor's position on, in the one direction for which it is open.
//! The null device becomes the guest's, and a number that is not open here is not open there. Anything else is refused
//! before anything is made.
//!
//! The guest gets bytes and nothing else: no file of the host, no lock, no mode that the descriptor has not.

use std::env;
use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{SockType, UnixAddr, getpeername, getsockopt, sockopt};
use nix::sys::stat::{SFlag, fstat, makedev};
use stockade_protocol::container::StreamKind;

use crate::sys::descriptors;
use crate::vm::is_of_0_1;

/// Number of the first descriptor.
const FIRST: RawFd = 3;

/// Largest number of descriptors that are passed on: all connections of one process go to its relay in one message.
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
    /// The descriptor with the last number is not open.
    #[error("--preserve-fds, {LISTEN_FDS}: descriptor {0} is not open")]
    NotOpen(RawFd),
    /// The VM was started before the upgrade.
    #[error(
        "--preserve-fds: descriptor {0} is /dev/null or not open, but a VM that stockade 0.1 has started can be given \
         streams only"
    )]
    Old(RawFd),
    /// The descriptor cannot be relayed as a stream.
    #[error(
        "--preserve-fds, {LISTEN_FDS}: descriptor {number} is {kind} ({target}); only pipes, connected stream sockets, \
         terminals, regular files that are open for either reading or writing, and /dev/null can be passed into a VM"
    )]
    NoStream {
        /// The descriptor's number.
        number: RawFd,
        /// What kind of file it is.
        kind: &'static str,
        /// Its link in /proc/self/fd.
        target: String,
    },
}

/// The descriptors from 3 on.
#[derive(Debug, Default)]
pub struct Preserved {
    descriptors: Vec<Descriptor>,
    /// The variables about them for the process's environment.
    pub env: Vec<String>,
}

#[derive(Debug)]
struct Descriptor {
    /// The descriptor; `None` if its number is not open.
    fd: Option<OwnedFd>,
    kind: StreamKind,
}

impl Preserved {
    /// Takes over `count` descriptors.
    ///
    /// # Errors
    /// [`PreserveError`].
    pub fn take(count: u32) -> Result<Self, PreserveError> {
        let count = count as usize;
        if count > MAX {
            return Err(PreserveError::TooMany(count));
        }
        let descriptors = (FIRST..).take(count).map(take).collect::<Result<Vec<_>, _>>()?;
        match (FIRST..).zip(&descriptors).last() {
            Some((number, Descriptor { fd: None, .. })) => Err(PreserveError::NotOpen(number)),
            _ => Ok(Self { descriptors, env: Vec::new() }),
        }
    }

    /// Takes over the descriptors of socket activation and `count` more, as runc and crun do for a container's init.
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

    /// The kind of each descriptor, for the agent.
    pub fn kinds(&self) -> Vec<StreamKind> {
        self.descriptors.iter().map(|descriptor| descriptor.kind).collect()
    }

    /// Checks whether the agent of the VM whose sockets are in this directory knows all kinds of descriptors that are
    /// passed on.
    ///
    /// # Errors
    /// [`PreserveError::Old`].
    pub fn check(&self, directory: BorrowedFd<'_>) -> Result<(), PreserveError> {
        let mut numbered = (FIRST..).zip(&self.descriptors);
        match numbered.find(|(_, descriptor)| !descriptor.kind.is_stream()) {
            Some((number, _)) if is_of_0_1(directory) => Err(PreserveError::Old(number)),
            _ => Ok(()),
        }
    }

    /// One sentence for each thing that differs in the container from what its caller may expect.
    pub fn warnings(&self) -> Vec<String> {
        let numbered = (FIRST..).zip(&self.descriptors);
        let files = numbered.filter(|(_, descriptor)| descriptor.is_file());
        files
            .map(|(number, _)| {
                format!(
                    "--preserve-fds: descriptor {number} is a pipe in the container, which carries the file's bytes \
                     from its position on: it can be neither seeked nor locked"
                )
            })
            .collect()
    }

    /// Opens the relay's ends: with file descriptions of its own where that is possible, so that nothing blocks and
    /// nothing changes for others who have the same file open.
    ///
    /// # Errors
    /// open(2)'s or dup(2)'s.
    pub fn open_ends(&self) -> io::Result<Vec<StreamEnds>> {
        let numbered = (0..=u16::MAX).zip(&self.descriptors);
        numbered.filter_map(|(index, descriptor)| descriptor.open_ends(index).transpose()).collect()
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

fn take(number: RawFd) -> Result<Descriptor, PreserveError> {
    // SAFETY: F_GETFD takes no argument and says only whether there is such a descriptor.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // What closes on exec has not been inherited: it is this process's own.
    if flags < 0 || flags & FdFlag::FD_CLOEXEC.bits() != 0 {
        return Ok(Descriptor { fd: None, kind: StreamKind::Closed });
    }
    // SAFETY: it is open and was passed to this process by number, so nothing else here owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    match kind(fd.as_fd()) {
        Ok(kind) => Ok(Descriptor { fd: Some(fd), kind }),
        Err(kind) => {
            let target = fs::read_link(format!("/proc/self/fd/{number}"));
            let target = target.map_or_else(|_| "unknown".to_owned(), |path| path.display().to_string());
            Err(PreserveError::NoStream { number, kind, target })
        }
    }
}

/// The kind of stream that a descriptor can be relayed as, or what the descriptor is instead.
fn kind(fd: BorrowedFd<'_>) -> Result<StreamKind, &'static str> {
    if fcntl(fd, FcntlArg::F_GETFL).is_ok_and(|flags| flags & libc::O_PATH != 0) {
        return Err("a path");
    }
    let stat = fstat(fd);
    let mode = stat.map(|stat| SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()));
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
        Ok(SFlag::S_IFCHR) if stat.is_ok_and(|stat| stat.st_rdev == makedev(1, 3)) => Ok(StreamKind::Null),
        Ok(SFlag::S_IFREG) => match access(fd) {
            Access::Read => Ok(StreamKind::Input),
            Access::Write => Ok(StreamKind::Output),
            Access::Both => Err("a regular file that is open for both reading and writing"),
        },
        Ok(SFlag::S_IFDIR) => Err("a directory"),
        Ok(SFlag::S_IFCHR | SFlag::S_IFBLK) => Err("a device"),
        _ => Err("not a stream"),
    }
}

fn socket(fd: BorrowedFd<'_>) -> Result<StreamKind, &'static str> {
    if getsockopt(&fd, sockopt::SockType) != Ok(SockType::Stream) {
        return Err("a socket that is not a stream");
    }
    if getsockopt(&fd, sockopt::AcceptConn) == Ok(true) {
        return Err("a listening socket");
    }
    // This works for every family: an address of another family causes another error.
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
    /// Its index among the descriptors from 3 on.
    pub index: u16,
    /// The descriptor from which bytes for the guest are read.
    pub source: Option<OwnedFd>,
    /// The descriptor to which bytes of the guest are written.
    pub sink: Option<OwnedFd>,
    /// Whether source and sink are one socket, whose directions end separately.
    pub is_socket: bool,
}

impl Descriptor {
    /// Opens the relay's ends; `None` if nothing is relayed.
    fn open_ends(&self, index: u16) -> io::Result<Option<StreamEnds>> {
        let Some(fd) = self.fd.as_ref().filter(|_| self.kind.is_stream()) else { return Ok(None) };
        let reads = self.kind != StreamKind::Output;
        let writes = self.kind != StreamKind::Input;
        let open = |write| descriptors::reopen_nonblocking(fd.as_fd(), write);
        Ok(Some(StreamEnds {
            index,
            source: reads.then(|| open(false)).transpose()?,
            sink: writes.then(|| open(true)).transpose()?,
            is_socket: self.kind == StreamKind::Socket && !fd.is_terminal(),
        }))
    }

    fn is_file(&self) -> bool {
        let mode = self.fd.as_ref().and_then(|fd| fstat(fd).ok()).map(|stat| stat.st_mode);
        mode.is_some_and(|mode| mode & libc::S_IFMT == libc::S_IFREG)
    }
}

#[cfg(test)]
#[path = "preserve_fds_test.rs"]
mod tests;
