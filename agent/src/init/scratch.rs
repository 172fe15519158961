//! Directories on disks that last as long as the container; on `/`, an overlay of one over the root file system.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat},
    mount::{MntFlags, umount2},
    sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat},
    unistd::{Gid, Uid, fchownat},
};
use stockade_protocol::container::{Container, Mount};
use stockade_sys::{
    mount_api,
    resolve::{Missing, Root},
};

use super::rootfs;
use crate::{
    disks,
    error::{Context, Result},
    selinux,
};

/// Where the disk under an overlay is mounted while that is made.
const STAGE: &str = "/run/scratch";

/// What is written to it need not survive a crash, and a directory of the image can be renamed.
const OVERLAY: &str =
    "lowerdir=/run/rootfs,upperdir=/run/scratch/upper,workdir=/run/scratch/work,volatile,redirect_dir=on";

/// The detached mount of a disk in a slot, or of an overlay of it over the root.
pub fn make(entry: &Mount, slot: u8, spec: &Container) -> Result<OwnedFd> {
    let step = || format!("make the scratch disk for {}", entry.destination);
    let source = disks::node(slot).display().to_string();
    let disk = mount_api::new_file_system("ext4", &source, &entry.data, 0).or_spec(step)?;
    if entry.destination == "/" {
        return over_root(&disk, &entry.data, spec).or_spec(step);
    }
    // In a user namespace, this user may give it to others afterwards.
    let id = |outside: Option<u32>| outside.unwrap_or_default();
    let owner = spec.id_mappings.as_ref().map(|ids| (id(ids.user(0)), id(ids.group(0))));
    owner.map_or(Ok(()), |(user, group)| own(&disk, user, group)).or_spec(step)?;
    Ok(disk)
}

/// Mounts it in the container's root; returns the directory that it covers, whose owner and mode it takes.
pub fn attach(root: &Root, entry: &Mount, disk: &OwnedFd) -> Result<OwnedFd> {
    let step = || format!("mount the scratch disk on {}", entry.destination);
    let target = root.open_or_create(Path::new(&entry.destination), Missing::Directory).or_spec(step)?;
    if entry.destination != "/" {
        fstat(&target).and_then(|covered| resemble(disk, &covered)).or_spec(step)?;
    }
    mount_api::attach(disk, &target).or_spec(step)?;
    Ok(target)
}

fn resemble(disk: &OwnedFd, covered: &FileStat) -> Result<(), Errno> {
    own(disk, covered.st_uid, covered.st_gid)?;
    let directory =
        openat(disk, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    fchmod(directory, Mode::from_bits_truncate(covered.st_mode))
}

fn own(directory: &OwnedFd, user: u32, group: u32) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    fchownat(directory, "", Some(user), Some(group), AtFlags::AT_EMPTY_PATH)
}

/// The kernel finds an overlay's layers by their paths, so they are mounted until it is made. Its files have the label that the
/// disk's have.
fn over_root(disk: &OwnedFd, data: &str, spec: &Container) -> Result<OwnedFd, Errno> {
    let root = mount_api::clone_tree(rootfs::open_shared(&spec.rootfs.share)?, false)?;
    let label = selinux::take_option(data).1.map(selinux::option).unwrap_or_default();
    let options = format!("{OVERLAY},{label}");
    let attach = |mount: &OwnedFd, path: &str| {
        mount_api::attach(
            mount,
            open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?,
        )
    };
    attach(&root, rootfs::STAGE)?;
    let made = attach(disk, STAGE).and_then(|()| {
        let made =
            layers(disk, &root).and_then(|()| mount_api::new_file_system("overlay", "overlay", &options, 0));
        umount2(STAGE, MntFlags::MNT_DETACH).and(made)
    });
    umount2(rootfs::STAGE, MntFlags::MNT_DETACH).and(made)
}

/// The directories of an overlay: the upper one shows as the root itself.
fn layers(disk: &OwnedFd, root: &OwnedFd) -> Result<(), Errno> {
    mkdirat(disk.as_fd(), "upper", Mode::S_IRWXU)?;
    mkdirat(disk.as_fd(), "work", Mode::S_IRWXU)?;
    let upper = openat(disk, "upper", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    resemble(&upper, &fstat(root)?)
}
