//! sd_notify(3): a datagram socket in a file system of its own, which only the container sees and nobody can change.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use nix::{
    fcntl::OFlag,
    mount::{MsFlags, mount},
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket},
};
use stockade_protocol::agent::NOTIFY_SOCKET;
use stockade_sys::{
    mount_api::{self, MountAttributes},
    resolve::{Missing, Root},
};

use super::rootfs::path_of;
use crate::error::{Context, ErrorKind, Result, error};

/// Makes the socket at the container's path for it, and returns it for the agent. umask(2) must be 0, so that all
/// processes of the container may write to it, whatever their user is.
pub fn open(root: &Root) -> Result<OwnedFd> {
    let (Some(directory), Some(name)) =
        (Path::new(NOTIFY_SOCKET).parent(), Path::new(NOTIFY_SOCKET).file_name())
    else {
        return Err(error(ErrorKind::Internal, format!("{NOTIFY_SOCKET} is not a path of a socket")));
    };
    let step = || format!("make the notification socket {NOTIFY_SOCKET}");
    let target = root.open_or_create(directory, Missing::Directory).or_spec(step)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let data = Some("mode=755,size=4k");
    mount(Some("tmpfs"), path_of(&target).as_str(), Some("tmpfs"), flags, data).or_spec(step)?;
    let top = root.open(directory, OFlag::O_PATH).or_spec(step)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None).or_internal(step)?;
    let address = UnixAddr::new(&Path::new(&path_of(&top)).join(name)).or_internal(step)?;
    bind(socket.as_raw_fd(), &address).or_spec(step)?;
    mount_api::set_attributes(&top, MountAttributes::READONLY, false).or_spec(step)?;
    Ok(socket)
}
