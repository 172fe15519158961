//! `mounts`, in the order of config.json.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, readlinkat},
    mount::{MsFlags, mount},
    sys::{
        stat::{Mode, SFlag, fstat},
        statfs::{FUSE_SUPER_MAGIC, fstatfs},
    },
    unistd::symlinkat,
};
use stockade_protocol::container::{Container, Mount, MountSource, Namespace, Namespaces};
use stockade_sys::mount_api::{self, MountAttributes, attr};

use super::{
    copy_up,
    resolve::{Missing, Root},
    rootfs::{open_shared, path_of},
};
use crate::{
    atomic_volumes, disks,
    error::{Context, ErrorKind, Result, error},
    sockets,
};

/// Mounts that become read-only last, because devices and other mounts still go into them.
#[derive(Debug, Default)]
pub struct Mounted {
    readonly: Vec<(PathBuf, OwnedFd)>,
}

impl Mounted {
    /// Makes them so.
    pub fn finish(self) -> Result<()> {
        self.readonly.iter().try_for_each(|(path, mount)| {
            mount_api::set_attributes(mount, MountAttributes::READONLY, false)
                .or_spec(|| format!("make {} read-only", path.display()))
        })
    }
}

/// Makes all mounts; of some, `prepared` has the file system, by their index.
pub fn mount_all(root: &Root, spec: &Container, mut prepared: Vec<Option<OwnedFd>>) -> Result<Mounted> {
    let mounts = &spec.mounts;
    let mut mounted = Mounted::default();
    prepared.resize_with(mounts.len(), || None);
    for (index, (entry, prepared)) in mounts.iter().zip(prepared).enumerate() {
        let made = match &entry.source {
            MountSource::Share(_) | MountSource::Copy(_) | MountSource::Socket { .. } => {
                mount_share(root, entry, &spec.id, prepared)
            }
            MountSource::FileSystem { fstype, source } => match prepared {
                Some(mount) => attach(root, entry, &mount, fstype),
                None => mount_file_system(root, entry, fstype, source, &mut mounted),
            },
            MountSource::Disk { .. } => Err(error(ErrorKind::Internal, "its disk is not attached")),
            MountSource::Remount => remount(root, entry),
            MountSource::Link(target) => link(root, entry, target),
        };
        made.map_err(|failure| error(failure.kind, format!("mounts[{index}]: {}", failure.message)))?;
    }
    Ok(mounted)
}

/// The file system of a mount that the root of the container's user namespace cannot make: it is mounted nowhere yet.
pub fn prepare(entry: &Mount, spec: &Container) -> Result<Option<OwnedFd>> {
    let step = || format!("prepare the mount on {}", entry.destination);
    match &entry.source {
        // Its access times would be beyond change once it was another user namespace's.
        MountSource::Share(_) | MountSource::Copy(_) | MountSource::Socket { .. } => {
            clone_share(entry, &spec.id).or_spec(step).map(Some)
        }
        MountSource::FileSystem { fstype, source } => {
            let fstype = guests_name(fstype);
            let is_on_disk = Path::new(source).starts_with(disks::DIRECTORY);
            if !is_on_disk && !is_of_other_owner(fstype, &spec.namespaces) {
                return Ok(None);
            }
            // A disk that cannot be written to cannot be mounted otherwise.
            let readonly = if is_on_disk && entry.flags & libc::MS_RDONLY != 0 { "ro," } else { "" };
            let data = format!("{readonly}{}", entry.data);
            mount_api::new_file_system(fstype, source, &data, attributes(entry.flags).set)
                .or_spec(step)
                .map(Some)
        }
        MountSource::Remount | MountSource::Link(_) | MountSource::Disk { .. } => Ok(None),
    }
}

/// Whether a file system shows a namespace that is not the new container's own. The network is always the guest's; the
/// processes of another container only those can show who share them.
fn is_of_other_owner(fstype: &str, namespaces: &Namespaces) -> bool {
    match fstype {
        "sysfs" => true,
        "mqueue" => namespaces.ipc != Namespace::New,
        "proc" => namespaces.pid == Namespace::Guest,
        "cgroup2" => namespaces.cgroup == Namespace::Guest,
        _ => false,
    }
}

/// In the guest there is only the second version, whatever the host has.
fn guests_name(fstype: &str) -> &str {
    if fstype == "cgroup" { "cgroup2" } else { fstype }
}

fn mount_share(root: &Root, entry: &Mount, id: &str, prepared: Option<OwnedFd>) -> Result<()> {
    let step = || match &entry.source {
        MountSource::Share(share) | MountSource::Copy(share) => {
            format!("mount the shared {share} on {}", entry.destination)
        }
        _ => format!("mount the socket on {}", entry.destination),
    };
    let tree = prepared.map_or_else(|| clone_share(entry, id), Ok).or_spec(step)?;
    let kind = SFlag::from_bits_truncate(fstat(&tree).or_spec(step)?.st_mode & SFlag::S_IFMT.bits());
    let missing = if kind == SFlag::S_IFDIR { Missing::Directory } else { Missing::File };
    let target = root.open_or_create(Path::new(&entry.destination), missing).or_spec(step)?;
    mount_api::attach(&tree, &target).or_spec(step)?;
    propagate(&tree, entry)
}

/// A shared tree, or a socket that stands for one of the host, as the container of this ID is to see it, mounted nowhere yet.
fn clone_share(entry: &Mount, id: &str) -> Result<OwnedFd, Errno> {
    let source = match &entry.source {
        MountSource::Share(share) => open_shared(share)?,
        MountSource::Copy(share) => atomic_volumes::open(share)?,
        MountSource::Socket { number, .. } => sockets::open(id, *number)?,
        _ => return Err(Errno::EINVAL),
    };
    let tree = mount_api::clone_tree(source, entry.flags & libc::MS_REC != 0)?;
    let attributes = attributes(entry.flags);
    if attributes != MountAttributes::default() {
        mount_api::set_attributes(&tree, attributes, false)?;
    }
    Ok(tree)
}

/// Mounts what was [prepared](prepare).
fn attach(root: &Root, entry: &Mount, mount: &OwnedFd, fstype: &str) -> Result<()> {
    let step = || format!("mount the guest's {fstype} on {}", entry.destination);
    let target = root.open_or_create(Path::new(&entry.destination), Missing::Directory).or_spec(step)?;
    mount_api::attach(mount, target).or_spec(step)?;
    propagate(mount, entry)
}

fn mount_file_system(
    root: &Root,
    entry: &Mount,
    fstype: &str,
    source: &str,
    mounted: &mut Mounted,
) -> Result<()> {
    let step = || format!("mount {fstype} on {}", entry.destination);
    let destination = Path::new(&entry.destination);
    let target = root.open_or_create(destination, Missing::Directory).or_spec(step)?;
    let fstype = guests_name(fstype);
    let fills_later = fstype == "tmpfs" && entry.flags & libc::MS_RDONLY != 0;
    let mut flags = MsFlags::from_bits_retain(entry.flags as libc::c_ulong);
    if fills_later {
        flags.remove(MsFlags::MS_RDONLY);
    }
    match mount(Some(source), path_of(&target).as_str(), Some(fstype), flags, options(entry)) {
        Err(Errno::ENODEV) => {
            let message = format!("{}: the guest's kernel knows no file system of type {fstype:?}", step());
            return Err(error(ErrorKind::Spec, message));
        }
        made => made.or_spec(step)?,
    }
    if fills_later || entry.copy_up || !entry.propagation.is_empty() {
        let top = root.open(destination, OFlag::O_PATH).or_spec(step)?;
        if entry.copy_up {
            copy_up(&target, &top, entry).or_spec(|| format!("{}: tmpcopyup", step()))?;
        }
        propagate(&top, entry)?;
        if fills_later {
            mounted.readonly.push((destination.to_owned(), top));
        }
    }
    Ok(())
}

fn options(entry: &Mount) -> Option<&str> {
    Some(entry.data.as_str()).filter(|data| !data.is_empty())
}

/// Gives what is mounted there already other flags and options.
fn remount(root: &Root, entry: &Mount) -> Result<()> {
    let step = || format!("remount {}", entry.destination);
    let target = root.open(Path::new(&entry.destination), OFlag::O_PATH).or_spec(step)?;
    let mut flags = MsFlags::from_bits_retain(entry.flags as libc::c_ulong) | MsFlags::MS_REMOUNT;
    // The shared file system is that of every container in the guest, and a socket is on the agent's; this mount of it is
    // the container's own.
    let is_socket = fstat(&target).or_spec(step)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits();
    if is_socket || fstatfs(&target).or_spec(step)?.filesystem_type() == FUSE_SUPER_MAGIC {
        flags.insert(MsFlags::MS_BIND);
    }
    mount(None::<&str>, path_of(&target).as_str(), None::<&str>, flags, options(entry)).or_spec(step)?;
    propagate(&target, entry)
}

/// `copy-symlink`: what is a link on the host is the same link in the container, unless something else is there.
fn link(root: &Root, entry: &Mount, target: &str) -> Result<()> {
    let step = || format!("link {} to {target}", entry.destination);
    let (directory, name) = root.parent(Path::new(&entry.destination)).or_spec(step)?;
    match symlinkat(target, &directory, name) {
        Err(Errno::EEXIST) if readlinkat(&directory, name).is_ok_and(|found| found == target) => Ok(()),
        made => made.or_spec(step),
    }
}

/// The new mount looks like the directory that it covers, but where its options say otherwise.
fn copy_up(covered: &OwnedFd, mount: &OwnedFd, entry: &Mount) -> Result<(), Errno> {
    let has_own = entry
        .data
        .split(',')
        .any(|option| ["mode=", "uid=", "gid="].iter().any(|attribute| option.starts_with(attribute)));
    // To be changed and filled it has to be more than named.
    let open = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mount = openat(mount, ".", open, Mode::empty())?;
    if !has_own {
        copy_up::copy_attributes(covered.as_fd(), mount.as_fd())?;
    }
    copy_up::copy_content(covered.as_fd(), mount.as_fd())
}

fn propagate(mount: &OwnedFd, entry: &Mount) -> Result<()> {
    const MS_REC: u64 = libc::MS_REC;
    entry.propagation.iter().try_for_each(|change| {
        let attributes = MountAttributes::propagation(change & !MS_REC);
        mount_api::set_attributes(mount, attributes, change & MS_REC != 0)
            .or_spec(|| format!("set the propagation of {}", entry.destination))
    })
}

/// The attributes of a bind mount for `MS_*` flags.
fn attributes(flags: u64) -> MountAttributes {
    const PLAIN: [(libc::c_ulong, u64); 6] = [
        (libc::MS_RDONLY, attr::RDONLY),
        (libc::MS_NOSUID, attr::NOSUID),
        (libc::MS_NODEV, attr::NODEV),
        (libc::MS_NOEXEC, attr::NOEXEC),
        (libc::MS_NODIRATIME, attr::NODIRATIME),
        (libc::MS_NOSYMFOLLOW, attr::NOSYMFOLLOW),
    ];
    const ACCESS_TIME: [(libc::c_ulong, u64); 3] = [
        (libc::MS_NOATIME, attr::NOATIME),
        (libc::MS_STRICTATIME, attr::STRICTATIME),
        (libc::MS_RELATIME, 0),
    ];
    let is_set = |bit: libc::c_ulong| flags & bit != 0;
    let mut set = PLAIN.iter().filter(|(bit, _)| is_set(*bit)).fold(0, |all, (_, attribute)| all | attribute);
    let mut clear = 0;
    // Access time is one setting with several values, so it is cleared as a whole.
    if let Some((_, attribute)) = ACCESS_TIME.iter().find(|(bit, _)| is_set(*bit)) {
        set |= attribute;
        clear = attr::ATIME;
    }
    MountAttributes::new(set, clear)
}

#[cfg(test)]
#[path = "mounts_test.rs"]
mod tests;
