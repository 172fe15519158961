//! `process.terminal`: a pseudo-terminal of the container's own devpts, so that ttyname(3) finds its name, as
//! controlling terminal and fds 0–2, and of the init as /dev/console.

use std::{
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::statfs::{DEVPTS_SUPER_MAGIC, fstatfs},
    unistd::{Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown},
};
use stockade_protocol::container::WindowSize;
use stockade_sys::{
    mount_api,
    resolve::{Missing, Root},
};

use crate::{
    error::{Context, Result},
    stdio::set_window_size,
};

/// Makes the terminal and makes it the controlling one; returns the master for the agent.
pub fn open(root: &Root, size: WindowSize, owner: u32) -> Result<OwnedFd> {
    let (master, slave) =
        open_pair(root).or_spec(|| "open a terminal of the devpts on /dev/pts".to_owned())?;
    take(&slave, size, owner).or_internal(|| "set the terminal up".to_owned())?;
    Ok(master)
}

/// Mounts the process's terminal on the container's /dev/console.
pub fn be_console(root: &Root) -> Result<()> {
    let console = root
        .open_or_create(Path::new("/dev/console"), Missing::File)
        .or_spec(|| "create /dev/console".to_owned())?;
    // By descriptors: no name leads to another file in between.
    mount_api::clone_tree(std::io::stdin(), false)
        .and_then(|terminal| mount_api::attach(&terminal, &console))
        .or_spec(|| "mount the terminal on /dev/console".to_owned())
}

fn open_pair(root: &Root) -> nix::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let master = root.open(Path::new("/dev/pts/ptmx"), flags)?;
    // The image, or a running container, may have something there that is not a terminal.
    is_of_devpts(&master)?;
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which `unlocked` is.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    // By the master, and not by a path that the image may have replaced.
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes flags by value.
    let slave = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: TIOCGPTPEER has just made this descriptor, and nobody else knows it.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    is_of_devpts(&slave)?;
    Ok((master, slave))
}

fn is_of_devpts(file: &OwnedFd) -> nix::Result<()> {
    if fstatfs(file)?.filesystem_type() == DEVPTS_SUPER_MAGIC { Ok(()) } else { Err(Errno::ENOTTY) }
}

fn take(slave: &OwnedFd, size: WindowSize, owner: u32) -> nix::Result<()> {
    set_window_size(slave, size)?;
    // The group is that of the devpts mount's options.
    fchown(slave, Some(Uid::from_raw(owner)), None)?;
    // SAFETY: TIOCSCTTY takes a number by value; 0 does not steal another session's terminal.
    Errno::result(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) })?;
    dup2_stdin(slave)?;
    dup2_stdout(slave)?;
    dup2_stderr(slave)
}
