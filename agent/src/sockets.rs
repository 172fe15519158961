//! Sockets of a container that stand for sockets of the host: its processes connect to them as to any other socket, and
//! the host accepts the connections one by one.

use std::{
    fs,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::{
        socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket},
        stat::{FchmodatFlags, Mode, fchmodat},
    },
    unistd::{Gid, Uid, fchownat, mkdir},
};
use stockade_protocol::container::{Mount, MountSource};

use crate::{
    error::{Context, Result},
    init::rootfs::{open_below, path_of},
    poller::Token,
};

/// The directory of all sockets, whose names are `CONTAINER/NUMBER`.
const ROOT: &str = "/run/sockets";

/// Largest number of clients that wait for the host to accept them.
const BACKLOG: i32 = 128;

/// The sockets of one container, which are removed with it.
#[derive(Debug, Default)]
pub struct Sockets {
    directory: PathBuf,
    list: Vec<Socket>,
}

/// A socket.
#[derive(Debug)]
pub struct Socket {
    /// As in [`MountSource::Socket`].
    pub number: u16,
    /// The non-blocking listener.
    pub listener: OwnedFd,
    /// The listener's registration, once there is one.
    pub token: Option<Token>,
    /// The host's connection that waits for a client.
    pub waiting: Option<Token>,
}

impl Sockets {
    /// Makes all sockets that a container's mounts ask for.
    pub fn make(id: &str, mounts: &[Mount]) -> Result<Self> {
        Self::make_below(Path::new(ROOT), id, mounts)
    }

    /// As [`Self::make`], below another directory.
    pub fn make_below(root: &Path, id: &str, mounts: &[Mount]) -> Result<Self> {
        let mut sockets = Self::default();
        for mount in mounts {
            let MountSource::Socket { number, mode, uid, gid } = mount.source else { continue };
            if sockets.list.is_empty() {
                sockets.directory = root.join(id);
                [root, &sockets.directory].into_iter().try_for_each(|path| {
                    make_directory(path).or_internal(|| format!("make {}", path.display()))
                })?;
            }
            let listener = make(&sockets.directory, number, Mode::from_bits_truncate(mode), (uid, gid))
                .or_spec(|| format!("make the socket for {}", mount.destination))?;
            sockets.list.push(Socket { number, listener, token: None, waiting: None });
        }
        Ok(sockets)
    }

    /// All sockets.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Socket> {
        self.list.iter_mut()
    }

    /// The socket with this number.
    pub fn get_mut(&mut self, number: u16) -> Option<&mut Socket> {
        self.iter_mut().find(|socket| socket.number == number)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if !self.directory.as_os_str().is_empty() {
            // It is a file system of the agent's own: what is there can be removed.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// The next client of a listener, non-blocking; `None` when there is none.
pub fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    loop {
        match accept4(listener.as_raw_fd(), SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC) {
            // SAFETY: accept4 has just made this descriptor, and nobody else knows it.
            Ok(fd) => return Some(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(_) => return None,
        }
    }
}

/// Opens a socket of a container, to be mounted.
pub fn open(id: &str, number: u16) -> nix::Result<OwnedFd> {
    open_below(ROOT, &format!("{id}/{number}"))
}

fn make_directory(path: &Path) -> Result<(), Errno> {
    match mkdir(path, Mode::S_IRWXU) {
        Err(Errno::EEXIST) => Ok(()),
        made => made,
    }
}

fn make(directory: &Path, number: u16, mode: Mode, (uid, gid): (u32, u32)) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // An ID may be longer than a socket's address.
    let open = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = nix::fcntl::open(directory, open, Mode::empty())?;
    let name = number.to_string();
    bind(socket.as_raw_fd(), &UnixAddr::new(&Path::new(&path_of(&directory)).join(&name))?)?;
    let owner = (Uid::from_raw(uid), Gid::from_raw(gid));
    fchownat(&directory, name.as_str(), Some(owner.0), Some(owner.1), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    fchmodat(&directory, name.as_str(), mode, FchmodatFlags::FollowSymlink)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket)
}

#[cfg(test)]
#[path = "sockets_test.rs"]
pub mod tests;
