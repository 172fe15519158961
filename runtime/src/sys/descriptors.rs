//! File descriptors: passing them on, sockets at long paths, and non-blocking use of the caller's files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, recv, setsockopt, socket, socketpair,
    sockopt::SendTimeout,
};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike};
use stockade_sys::fd_passing;

/// Largest number of descriptors in one message; the kernel's limit is 253.
pub const PER_MESSAGE: usize = 128;

/// How long a listener whose queue is full may take to accept a connection, in seconds.
const CONNECTS_WITHIN_S: i64 = 2;

/// A connected pair of SOCK_SEQPACKET sockets.
///
/// # Errors
/// socketpair(2)'s.
pub fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one message without descriptors.
///
/// # Errors
/// send(2)'s.
pub fn send_bytes(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let sent = nix::sys::socket::send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives one message and its descriptors, [`PER_MESSAGE`] at most; no bytes means that the peer has closed.
///
/// # Errors
/// Those of [`fd_passing::receive`].
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut descriptors = Vec::new();
    let length = fd_passing::receive(socket, buffer, PER_MESSAGE, &mut descriptors)?;
    Ok((length, descriptors))
}

/// Receives one message without the descriptors that may come with it; no bytes means that the peer has closed.
///
/// # Errors
/// recv(2)'s.
pub fn receive_bytes(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Err(nix::errno::Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

/// A path to `name` in an open directory that fits in a socket address, however deep the directory lies.
fn socket_path(directory: BorrowedFd<'_>, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

/// Listens on a new socket `name` in an open directory.
///
/// # Errors
/// bind(2)'s.
pub fn listen(directory: BorrowedFd<'_>, name: &str) -> io::Result<UnixListener> {
    UnixListener::bind(socket_path(directory, name))
}

/// Opens the socket `name` in `directory` as an O_PATH descriptor, which can only be connected to.
///
/// # Errors
/// openat(2)'s.
pub fn open_socket(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    Ok(openat(directory, name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Connects to the socket `name` in an open directory.
///
/// # Errors
/// connect(2)'s; `TimedOut` if the listener's queue stays full.
pub fn connect(directory: BorrowedFd<'_>, name: &str) -> io::Result<UnixStream> {
    connect_in_time(&socket_path(directory, name))
}

/// Connects to the socket at a path that fits in a socket address.
///
/// # Errors
/// As [`connect`].
pub fn connect_in_time(path: &Path) -> io::Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let address = UnixAddr::new(path)?;
    // connect(2) waits for room in the queue as long as a write may.
    setsockopt(&socket, SendTimeout, &TimeVal::seconds(CONNECTS_WITHIN_S))?;
    nix::sys::socket::connect(socket.as_raw_fd(), &address).map_err(|errno| match errno {
        nix::errno::Errno::EAGAIN => io::ErrorKind::TimedOut.into(),
        errno => io::Error::from(errno),
    })?;
    setsockopt(&socket, SendTimeout, &TimeVal::seconds(0))?;
    Ok(socket.into())
}

/// Connects to a socket that the caller has named; its path may be longer than a socket address.
///
/// # Errors
/// open(2)'s on its directory, or connect(2)'s.
pub fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let (directory, name) = split(path)?;
    UnixStream::connect(socket_path(directory.as_fd(), name))
}

/// As [`connect_to`], for datagrams.
///
/// # Errors
/// As there.
pub fn connect_datagrams_to(path: &Path) -> io::Result<UnixDatagram> {
    let (directory, name) = split(path)?;
    let socket = UnixDatagram::unbound()?;
    socket.connect(socket_path(directory.as_fd(), name))?;
    Ok(socket)
}

/// Connects to the datagram socket `name` in an open directory.
///
/// # Errors
/// connect(2)'s.
pub fn connect_datagrams(directory: BorrowedFd<'_>, name: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(socket_path(directory, name))?;
    Ok(socket)
}

/// Binds a new datagram socket `name` in an open directory.
///
/// # Errors
/// bind(2)'s.
pub fn listen_for_datagrams(directory: BorrowedFd<'_>, name: &str) -> io::Result<UnixDatagram> {
    UnixDatagram::bind(socket_path(directory, name))
}

/// The directory of a path, open, and the name in it.
fn split(path: &Path) -> io::Result<(File, &str)> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory =
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(parent)?;
    Ok((directory, name))
}

/// A file description of this process for the file of `fd`, which never blocks.
///
/// O_NONBLOCK belongs to the open file description, which inherited stdio shares with the caller's shell: it may not
/// be set there. Pipes and terminals can be opened again; sockets cannot and are used with MSG_DONTWAIT; regular files
/// never block.
///
/// # Errors
/// open(2)'s.
pub fn reopen_nonblocking(fd: BorrowedFd<'_>, write: bool) -> io::Result<OwnedFd> {
    let file = File::from(fd.try_clone_to_owned()?);
    let kind = file.metadata()?.file_type();
    if !(kind.is_fifo() || kind.is_char_device()) {
        return Ok(file.into());
    }
    let reopened = OpenOptions::new()
        .read(!write)
        .write(write)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    // The file cannot be opened (a pipe of another user, for example): poll(2) before each call still keeps it from
    // blocking on reads.
    Ok(reopened.unwrap_or(file).into())
}

/// Makes `from` also standard input (0), output (1) or error (2), without close-on-exec.
///
/// # Errors
/// Those of dup2(2); `InvalidInput` for another number.
pub fn become_stdio(from: impl AsFd, stdio: RawFd) -> io::Result<()> {
    if !(0..=2).contains(&stdio) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: nothing owns these numbers: they are open in every Rust program, and nobody closes them.
    Ok(unsafe { stockade_sys::descriptors::duplicate_to(from, stdio) }?)
}

#[cfg(test)]
#[path = "descriptors_test.rs"]
mod tests;
