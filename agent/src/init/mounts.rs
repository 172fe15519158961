//! `mounts`, in the order of config.json.

use std::{
    borrow::Cow,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{
        stat::{Mode, SFlag, fstat},
        statfs::{FUSE_SUPER_MAGIC, fstatfs},
    },
    unistd::symlinkat,
};
use stockade_protocol::{
    container::{Container, Mount, MountSource, Namespace, Namespaces},
    share_options::{Below, ShareOptions},
};
use stockade_sys::{
    mount_api::{self, MountAttributes, attr},
    resolve::{Missing, Root},
};

use super::{
    copy_up,
    devices::STAGE,
    rootfs::{open_shared, path_of, staged},
    scratch,
};
use crate::{
    atomic_volumes, disks,
    error::{Context, ErrorKind, Result, error},
    selinux, sockets,
};

/// File systems that show the guest's kernel; a container relies on them to be at their usual places.
const OF_KERNEL: [&str; 2] = ["proc", "sysfs"];

/// The steps that are left when all mounts are made.
#[derive(Debug, Default)]
pub struct Mounted<'a> {
    /// Mounts that become read-only at the end, because devices and other mounts still go into them.
    readonly: Vec<(PathBuf, OwnedFd)>,
    /// Mounts with their own propagation, which counts more than the root's.
    propagated: Vec<(OwnedFd, &'a Mount)>,
    /// Single files that are shared with the host.
    pub files: Vec<OwnedFd>,
}

impl Mounted<'_> {
    /// Sets the mounts' own propagation again, after the root and everything below it have got another.
    pub fn propagate_again(&self) -> Result<()> {
        self.propagated.iter().try_for_each(|(mount, entry)| propagate(mount, entry, false))
    }

    /// Makes those mounts read-only that are to be so.
    pub fn finish(&self) -> Result<()> {
        self.readonly.iter().try_for_each(|(path, mount)| {
            mount_api::set_attributes(mount, MountAttributes::READONLY, false)
                .or_spec(|| format!("make {} read-only", path.display()))
        })
    }
}

/// Makes all mounts; for some, `prepared` has the file system, by their index. A mount on `/` is the root from then on.
pub fn mount_all<'a>(
    root: &mut Root,
    spec: &'a Container,
    mut prepared: Vec<Option<OwnedFd>>,
) -> Result<Mounted<'a>> {
    let mounts = &spec.mounts;
    let mut mounted = Mounted::default();
    prepared.resize_with(mounts.len(), || None);
    for (index, (entry, prepared)) in mounts.iter().zip(prepared).enumerate() {
        let made = match &entry.source {
            MountSource::Share(_) | MountSource::Copy(_) | MountSource::Socket { .. } => {
                mount_share(root, entry, &spec.id, prepared, &mut mounted)
            }
            MountSource::FileSystem { fstype, source } => match prepared {
                Some(mount) => attach(root, entry, mount, fstype, &mut mounted),
                None => mount_file_system(root, entry, fstype, source, &mut mounted),
            },
            MountSource::Scratch { slot } => {
                let disk = prepared.map_or_else(|| scratch::make(entry, *slot, spec), Ok);
                disk.and_then(|disk| {
                    let target = scratch::attach(root, entry, &disk)?;
                    settle(root, target, disk, entry, &mut mounted)
                })
            }
            MountSource::Disk { .. } => Err(error(ErrorKind::Internal, "its disk is not attached")),
            MountSource::Remount => remount(root, entry),
            MountSource::Link(target) => link(root, entry, target),
        };
        made.map_err(|failure| error(failure.kind, format!("mounts[{index}]: {}", failure.message)))?;
    }
    Ok(mounted)
}

/// The file system of a mount that the root of the container's user namespace cannot make: it is detached.
pub fn prepare(entry: &Mount, spec: &Container) -> Result<Option<OwnedFd>> {
    let step = || format!("prepare the mount on {}", entry.destination);
    match &entry.source {
        // Its access-time setting could not be changed once another user namespace owned the mount.
        MountSource::Share(_) | MountSource::Copy(_) | MountSource::Socket { .. } => {
            clone_share(entry, &spec.id).or_spec(step).map(Some)
        }
        MountSource::FileSystem { fstype, source } => {
            let fstype = guests_name(fstype);
            let is_on_disk = Path::new(source).starts_with(disks::DIRECTORY);
            if !is_on_disk && !is_of_other_owner(fstype, &spec.namespaces) {
                return Ok(None);
            }
            // A read-only disk can be mounted with `ro` only.
            let readonly = if is_on_disk && entry.flags & libc::MS_RDONLY != 0 { "ro," } else { "" };
            let (data, label) = options(entry, fstype);
            let data = format!("{readonly}{data}");
            let made = mount_api::new_file_system(fstype, source, &data, attributes(entry.flags).set);
            made.and_then(|mount| label_queues(&mount, label).map(|()| mount)).or_spec(step).map(Some)
        }
        MountSource::Scratch { slot } => scratch::make(entry, *slot, spec).map(Some),
        MountSource::Remount | MountSource::Link(_) | MountSource::Disk { .. } => Ok(None),
    }
}

/// Whether a file system shows a namespace that is not the new container's own. The network is always the guest's; only
/// a process in another container's PID namespace can mount a proc of it.
fn is_of_other_owner(fstype: &str, namespaces: &Namespaces) -> bool {
    match fstype {
        "sysfs" => true,
        "mqueue" => namespaces.ipc != Namespace::New,
        "proc" => namespaces.pid == Namespace::Guest,
        "cgroup2" => namespaces.cgroup == Namespace::Guest,
        _ => false,
    }
}

/// The file system's name in the guest, which has only version 2 of cgroups, whatever the host has.
fn guests_name(fstype: &str) -> &str {
    if fstype == "cgroup" { "cgroup2" } else { fstype }
}

fn mount_share<'a>(
    root: &mut Root,
    entry: &'a Mount,
    id: &str,
    prepared: Option<OwnedFd>,
    mounted: &mut Mounted<'a>,
) -> Result<()> {
    let step = || match &entry.source {
        MountSource::Share(share) | MountSource::Copy(share) => {
            format!("mount the shared {share} on {}", entry.destination)
        }
        _ => format!("mount the socket on {}", entry.destination),
    };
    let tree = prepared.map_or_else(|| clone_share(entry, id), Ok).or_spec(step)?;
    let kind = SFlag::from_bits_truncate(fstat(&tree).or_spec(step)?.st_mode & SFlag::S_IFMT.bits());
    let missing = if kind == SFlag::S_IFDIR { Missing::Directory } else { Missing::File };
    if kind == SFlag::S_IFREG {
        mounted.files.push(tree.try_clone().or_internal(step)?);
    }
    let options = ShareOptions::decode(&entry.data).unwrap_or_default();
    let destination = Path::new(&entry.destination);
    let target = if options.is_unfollowed {
        root.open_or_create_unfollowed(destination, missing)
    } else {
        root.open_or_create(destination, missing)
    };
    let target = target.or_spec(step)?;
    mount_api::attach(&tree, &target).or_spec(step)?;
    for below in options.below.iter().filter(|below| below.has_terminals) {
        mount_terminals(&tree, &below.path).or_spec(|| format!("{}: terminals on {}", step(), below.path))?;
    }
    settle(root, target, tree, entry, mounted)
}

/// Mounts a devpts of the guest in place of the host's terminals, which only the host's kernel can serve.
fn mount_terminals(tree: &OwnedFd, path: &str) -> Result<(), Errno> {
    let terminals = mount_api::new_file_system(
        "devpts",
        "devpts",
        "ptmxmode=0666,mode=0620",
        attr::NOSUID | attr::NOEXEC,
    )?;
    match open_below(tree, path) {
        // The directory has gone since.
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
        found => mount_api::attach(terminals, found?),
    }
}

/// Opens a directory of a shared tree as the file system that begins there.
fn open_below(tree: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(tree, path, how)
}

/// The steps after something was mounted on `target`, which may have been the root.
fn settle<'a>(
    root: &mut Root,
    target: OwnedFd,
    mount: OwnedFd,
    entry: &'a Mount,
    mounted: &mut Mounted<'a>,
) -> Result<()> {
    propagate(&mount, entry, true)?;
    if !entry.propagation.is_empty() {
        mounted.propagated.push((mount, entry));
    }
    if root.is(&target).or_internal(|| format!("look at {}", entry.destination))? {
        root.replace(staged()?);
    }
    Ok(())
}

/// A detached mount for the container of this ID: of a shared tree, or of a socket that stands for one of the host.
fn clone_share(entry: &Mount, id: &str) -> Result<OwnedFd, Errno> {
    let source = match &entry.source {
        MountSource::Share(share) => open_shared(share)?,
        MountSource::Copy(share) => atomic_volumes::open(share)?,
        MountSource::Socket { number, .. } => sockets::open(id, *number)?,
        _ => return Err(Errno::EINVAL),
    };
    let tree = mount_api::clone_tree(source, entry.flags & libc::MS_REC != 0)?;
    let below = ShareOptions::decode(&entry.data).unwrap_or_default().below;
    let tree = if below.is_empty() { tree } else { settle_below(&tree, &below)? };
    let attributes = attributes(entry.flags);
    if attributes != MountAttributes::default() {
        mount_api::set_attributes(&tree, attributes, false)?;
    }
    Ok(tree)
}

/// Sets the flags of what is mounted below a tree. The guest's kernel mounts it at the first access, with the flags
/// that the mount above has at that time; and it can change only mounts in the process's namespace.
fn settle_below(tree: &OwnedFd, all: &[Below]) -> Result<OwnedFd, Errno> {
    let stage = open(STAGE, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    mount_api::attach(tree, stage)?;
    let settled = all
        .iter()
        .try_for_each(|below| match open_below(tree, &below.path) {
            // The mount has gone since.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => Ok(()),
            found => {
                let exactly = MountAttributes::new(attributes(below.flags).set, CLEARABLE);
                match mount_api::set_attributes(found?, exactly, false) {
                    // Nothing is mounted there any more, either.
                    Err(Errno::EINVAL) => Ok(()),
                    set => set,
                }
            }
        })
        .and_then(|()| mount_api::clone_tree(tree, true));
    umount2(STAGE, MntFlags::MNT_DETACH)?;
    settled
}

/// Mounts what was [prepared](prepare).
fn attach<'a>(
    root: &mut Root,
    entry: &'a Mount,
    mount: OwnedFd,
    fstype: &str,
    mounted: &mut Mounted<'a>,
) -> Result<()> {
    let step = || format!("mount the guest's {fstype} on {}", entry.destination);
    let target = find_target(root, entry, fstype)?;
    mount_api::attach(&mount, &target).or_spec(step)?;
    settle(root, target, mount, entry, mounted)
}

/// The place at which a file system is mounted.
fn find_target(root: &Root, entry: &Mount, fstype: &str) -> Result<OwnedFd> {
    let step = || format!("mount {fstype} on {}", entry.destination);
    let destination = Path::new(&entry.destination);
    if OF_KERNEL.contains(&fstype) {
        let target = root.open_or_create_unfollowed(destination, Missing::Directory).or_spec(step)?;
        if fstat(&target).or_spec(step)?.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFDIR.bits() {
            let message = format!(
                "{}: the root file system has no directory there, but something else, such as a link, which may lead \
                 anywhere; the image must have a directory there, or nothing",
                step()
            );
            return Err(error(ErrorKind::Spec, message));
        }
        return Ok(target);
    }
    let has_own_mode = fstype != "tmpfs" || has_option(entry, "mode=");
    let missing = if has_own_mode { Missing::Directory } else { Missing::Scratch };
    root.open_or_create(destination, missing).or_spec(step)
}

fn mount_file_system<'a>(
    root: &mut Root,
    entry: &'a Mount,
    fstype: &str,
    source: &str,
    mounted: &mut Mounted<'a>,
) -> Result<()> {
    let step = || format!("mount {fstype} on {}", entry.destination);
    let destination = Path::new(&entry.destination);
    let fstype = guests_name(fstype);
    let target = find_target(root, entry, fstype)?;
    let fills_later = fstype == "tmpfs" && entry.flags & libc::MS_RDONLY != 0;
    let mut flags = MsFlags::from_bits_retain(entry.flags as libc::c_ulong);
    if fills_later {
        flags.remove(MsFlags::MS_RDONLY);
    }
    let (mut data, label) = options(entry, fstype);
    if fstype == "tmpfs" && !has_option(entry, "mode=") {
        let mode = fstat(&target).or_spec(step)?.st_mode & 0o7777;
        let comma = if data.is_empty() { "" } else { "," };
        data.to_mut().push_str(&format!("{comma}mode={mode:o}"));
    }
    let data = Some(&*data).filter(|data| !data.is_empty());
    match mount(Some(source), path_of(&target).as_str(), Some(fstype), flags, data) {
        Err(Errno::ENODEV) => {
            let message = format!("{}: the guest's kernel knows no file system of type {fstype:?}", step());
            return Err(error(ErrorKind::Spec, message));
        }
        made => made.or_spec(step)?,
    }
    if label.is_some() {
        let queues = root.open(destination, OFlag::O_PATH).or_spec(step)?;
        label_queues(&queues, label).or_spec(step)?;
    }
    let is_root = root.is(&target).or_internal(step)?;
    if is_root || fills_later || entry.copy_up || !entry.propagation.is_empty() {
        let top = if is_root { staged()? } else { root.open(destination, OFlag::O_PATH).or_spec(step)? };
        if entry.copy_up {
            copy_up(&target, &top).or_spec(|| format!("{}: tmpcopyup", step()))?;
        }
        if fills_later {
            let again = top.try_clone().or_internal(step)?;
            mounted.readonly.push((destination.to_owned(), again));
        }
        settle(root, target, top, entry, mounted)?;
    }
    Ok(())
}

fn has_option(entry: &Mount, name: &str) -> bool {
    entry.data.split(',').any(|option| option.starts_with(name))
}

/// The options of a file system, and the label that its root gets when it is mounted: all message queues of an IPC
/// namespace are in one file system, which takes no label as an option.
fn options<'a>(entry: &'a Mount, fstype: &str) -> (Cow<'a, str>, Option<&'a str>) {
    match selinux::take_option(&entry.data) {
        (others, label) if fstype == selinux::MQUEUE => (others.into(), label),
        _ => (Cow::Borrowed(&entry.data), None),
    }
}

fn label_queues(mount: &OwnedFd, label: Option<&str>) -> Result<(), Errno> {
    let Some(label) = label else { return Ok(()) };
    let root = openat(mount, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    match selinux::label(root.as_raw_fd(), label) {
        // It belongs to the guest's root, whom a container's user namespace does not have.
        Err(Errno::EPERM) => Ok(()),
        labelled => labelled,
    }
}

/// Gives the mount at the destination other flags and options.
fn remount(root: &Root, entry: &Mount) -> Result<()> {
    let step = || format!("remount {}", entry.destination);
    let target = root.open(Path::new(&entry.destination), OFlag::O_PATH).or_spec(step)?;
    let mut flags = MsFlags::from_bits_retain(entry.flags as libc::c_ulong) | MsFlags::MS_REMOUNT;
    // All containers in the guest have the shared file system, and the agent's file system holds the sockets; only this
    // mount belongs to the container.
    let is_socket = fstat(&target).or_spec(step)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits();
    if is_socket || fstatfs(&target).or_spec(step)?.filesystem_type() == FUSE_SUPER_MAGIC {
        flags.insert(MsFlags::MS_BIND);
    }
    let data = Some(entry.data.as_str()).filter(|data| !data.is_empty());
    mount(None::<&str>, path_of(&target).as_str(), None::<&str>, flags, data).or_spec(step)?;
    propagate(&target, entry, true)
}

/// `copy-symlink`: makes the same link in the container as on the host, unless something else is there.
fn link(root: &Root, entry: &Mount, target: &str) -> Result<()> {
    let step = || format!("link {} to {target}", entry.destination);
    let (directory, name) = root.parent(Path::new(&entry.destination)).or_spec(step)?;
    match symlinkat(target, &directory, name) {
        Err(Errno::EEXIST) if readlinkat(&directory, name).is_ok_and(|found| found == target) => Ok(()),
        made => made.or_spec(step),
    }
}

/// Copies the content of the covered directory into the new file system.
fn copy_up(covered: &OwnedFd, mount: &OwnedFd) -> Result<(), Errno> {
    // An O_PATH descriptor is not enough for filling it.
    let open = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mount = openat(mount, ".", open, Mode::empty())?;
    copy_up::copy_content(covered.as_fd(), mount.as_fd())
}

fn propagate(mount: &OwnedFd, entry: &Mount, with_below: bool) -> Result<()> {
    const MS_REC: u64 = libc::MS_REC;
    entry.propagation.iter().try_for_each(|change| {
        let attributes = MountAttributes::propagation(change & !MS_REC);
        mount_api::set_attributes(mount, attributes, with_below && change & MS_REC != 0)
            .or_spec(|| format!("set the propagation of {}", entry.destination))
    })
}

/// All attributes that flags can set or clear.
const CLEARABLE: u64 = attr::RDONLY
    | attr::NOSUID
    | attr::NODEV
    | attr::NOEXEC
    | attr::NODIRATIME
    | attr::NOSYMFOLLOW
    | attr::ATIME;

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
