//! `root`: the container's root file system, from the share to `/`.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open as open_path, openat2},
    mount::{MntFlags, umount2},
    sys::stat::Mode,
    unistd::{chdir, fchdir, pivot_root},
};
use stockade_protocol::{agent::SHARES, container::Rootfs};
use stockade_sys::{
    mount_api::{self, MountAttributes},
    resolve::{Missing, Root},
};

use crate::error::{Context, Result};

/// Where the container's root is mounted until it becomes the root; every container has its own mount namespace, and so
/// this path is free.
pub const STAGE: &str = "/run/rootfs";

/// Opens something below the share's root. The host makes these paths without links; a link in one would come from the
/// image.
pub fn open_shared(path: &str) -> nix::Result<OwnedFd> {
    open_below(SHARES, path)
}

/// Opens something below a directory of the agent, likewise.
pub fn open_below(directory: &str, path: &str) -> nix::Result<OwnedFd> {
    let directory = open_directory(directory)?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(&directory, path, how)
}

/// A detached mount of the shared tree.
pub fn clone(spec: &Rootfs) -> Result<OwnedFd> {
    let source = open_shared(&spec.share).or_spec(|| format!("open the shared directory {}", spec.share))?;
    mount_api::clone_tree(source, true).or_internal(|| "clone the root file system".to_owned())
}

/// Mounts the root at a place where it can be filled.
pub fn open(root: OwnedFd) -> Result<Root> {
    open_directory(STAGE)
        .and_then(|stage| mount_api::attach(&root, stage))
        .or_internal(|| "mount the root file system".to_owned())?;
    Ok(Root::new(root))
}

/// The topmost mount at that place.
pub fn staged() -> Result<OwnedFd> {
    open_directory(STAGE).or_internal(|| "open the root file system".to_owned())
}

/// The root that the process has now.
pub fn current() -> Result<Root> {
    open_directory("/").map(Root::new).or_internal(|| "open the root".to_owned())
}

fn open_directory(path: &str) -> nix::Result<OwnedFd> {
    open_path(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Makes the working directory, as other runtimes do.
pub fn create_directory(root: &Root, path: &str) -> Result<()> {
    root.open_or_create(Path::new(path), Missing::Directory)
        .map(drop)
        .or_spec(|| format!("create the working directory {path:?}"))
}

/// Makes the container's root the root, and detaches the guest's.
pub fn pivot(root: Root) -> Result<()> {
    // If both arguments are the same, the old root is mounted over the new one, and detaching it uncovers the new one.
    fchdir(&root)
        .and_then(|()| pivot_root(".", "."))
        .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
        .and_then(|()| chdir("/"))
        .or_internal(|| "change to the root file system".to_owned())
}

/// Sets the propagation and the read-only flag of the container's root, after the last change to it.
pub fn finish(spec: &Rootfs) -> Result<()> {
    const MS_REC: u64 = libc::MS_REC;
    if spec.propagation != 0 {
        let change = MountAttributes::propagation(spec.propagation & !MS_REC);
        mount_api::set_attributes_at(c"/", change, spec.propagation & MS_REC != 0)
            .or_spec(|| "set linux.rootfsPropagation".to_owned())?;
    }
    if spec.readonly {
        mount_api::set_attributes_at(c"/", MountAttributes::READONLY, false)
            .or_internal(|| "make the root read-only".to_owned())?;
    }
    Ok(())
}

/// The path by which this process can name what a descriptor refers to.
pub fn path_of(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
