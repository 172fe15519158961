//! Makes what has to be in a read-only root before it is shared: afterwards the agent can make nothing in it.
//!
//! A root that the guest could write to until its container is built would not be read-only for a guest that is hostile
//! already. So the host makes what the agent would make: the places of mounts, device nodes, links and the working
//! directory. The rootfs is hostile content. Every name in it is looked up by itself, beneath a descriptor, and a link
//! is followed here and not by the kernel: none leads out. Places inside an earlier mount are left to the agent, as in
//! a writable root.
//!
//! What cannot be made, for example on a file system that is read-only itself, is left out; if the container needs it,
//! the agent reports the error.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat, umask};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};
use stockade_protocol::agent::NOTIFY_SOCKET;
use stockade_protocol::container::{DEFAULT_DEVICES, DEVICE_LINKS, MountSource, PTMX};

use crate::lower::plan::{GuestPlan, PlannedSource};
use crate::vm::Tree;

/// Largest number of links that are followed for one path; the kernel's own limit.
const MAX_LINKS: usize = 40;

/// What is made where nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind<'a> {
    Directory,
    /// A directory for a tmpfs without `mode=`, which takes the mode of the directory that it covers.
    Scratch,
    File,
    /// A symbolic link to `target`; with `replaces`, what the image has at its place is removed.
    Link {
        target: &'a str,
        replaces: bool,
    },
}

/// Makes in the rootfs what the container needs there; must be called in the mount namespace in which its trees are
/// cloned.
pub fn make(rootfs: &Path, container: &GuestPlan, trees: &[Tree]) {
    let directory = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(rootfs);
    let Ok(root) = directory else { return };
    let owner = container.id_mappings.as_ref();
    let owner = owner.and_then(|ids| ids.user(0).zip(ids.group(0))).unwrap_or((0, 0));
    let mut walk = Walk { root: root.into(), owner, covered: HashSet::new() };
    // The modes are as they are meant.
    let former = umask(Mode::empty());
    walk.make_all(container, trees);
    umask(former);
}

/// Whether a mount's source is a directory, by the name of its tree.
fn is_directory(share: &str, trees: &[Tree]) -> bool {
    let name = share.rsplit('/').next().unwrap_or(share);
    let Some(tree) = trees.iter().find(|tree| tree.name == name) else { return true };
    let found = if tree.no_follow { fs::symlink_metadata(&tree.source) } else { fs::metadata(&tree.source) };
    tree.overlay.is_some() || found.is_ok_and(|found| found.is_dir())
}

struct Walk {
    root: OwnedFd,
    /// User and group that get what is made: the container's root.
    owner: (u32, u32),
    /// The places of mounts, below the root.
    covered: HashSet<PathBuf>,
}

impl Walk {
    fn make_all(&mut self, container: &GuestPlan, trees: &[Tree]) {
        for mount in &container.mounts {
            let kind = match &mount.source {
                PlannedSource::Guest(MountSource::Share(share) | MountSource::Copy(share))
                    if !is_directory(share, trees) =>
                {
                    Kind::File
                }
                PlannedSource::Guest(MountSource::Socket { .. }) => Kind::File,
                PlannedSource::Guest(MountSource::Remount) => continue,
                PlannedSource::Guest(MountSource::Link(target)) => Kind::Link { target, replaces: false },
                PlannedSource::Guest(MountSource::FileSystem { fstype, .. })
                    if fstype == "tmpfs" && !mount.has_mode() =>
                {
                    Kind::Scratch
                }
                PlannedSource::Guest(_) | PlannedSource::Disk(..) | PlannedSource::Scratch(_) => {
                    Kind::Directory
                }
            };
            let permit = self.note(&mount.destination, kind);
            if let (Some(permit), false) = (permit, matches!(kind, Kind::Link { .. })) {
                self.covered.insert(permit);
            }
        }
        for device in &container.devices {
            self.note(device.path(), Kind::File);
        }
        if !container.share_covers_dev() {
            for (path, ..) in DEFAULT_DEVICES {
                self.note(path, Kind::File);
            }
            for (name, target) in DEVICE_LINKS {
                let link = Kind::Link { target, replaces: name == PTMX };
                self.note(&format!("/dev/{name}"), link);
            }
        }
        if container.process.terminal.is_some() {
            self.note("/dev/console", Kind::File);
        }
        if let (true, Some(directory)) = (container.notify, Path::new(NOTIFY_SOCKET).parent()) {
            self.note(&directory.to_string_lossy(), Kind::Directory);
        }
        self.note(&container.process.cwd, Kind::Directory);
    }

    /// As [`Walk::place`]; a path that cannot be made is only logged: the agent reports the error.
    fn note(&self, path: &str, kind: Kind<'_>) -> Option<PathBuf> {
        self.place(Path::new(path), kind)
            .inspect_err(|errno| tracing::debug!("cannot make {path} in the read-only root: {errno}"))
            .ok()
            .flatten()
    }

    /// Makes the missing parts of `path`; returns its place below the root, without links, or `None` if that is in a
    /// mount.
    fn place(&self, path: &Path, kind: Kind<'_>) -> Result<Option<PathBuf>, Errno> {
        if self.covered.contains(Path::new("")) {
            return Ok(None);
        }
        let mut pending: VecDeque<OsString> = names(path).collect();
        let mut directories: Vec<(OsString, OwnedFd)> = Vec::new();
        let mut links = MAX_LINKS;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                directories.pop();
                continue;
            }
            let mut here: PathBuf = directories.iter().map(|(name, _)| name).collect();
            here.push(&name);
            if self.covered.contains(&here) {
                return Ok(None);
            }
            let directory = directories.last().map_or(self.root.as_fd(), |(_, directory)| directory.as_fd());
            let is_last = pending.is_empty();
            if let (true, Kind::Link { target, replaces }) = (is_last, kind) {
                return self.link(directory, &name, target, replaces).map(|()| Some(here));
            }
            let found = match open(directory, &name) {
                Err(Errno::ENOENT) if is_last && kind == Kind::File => {
                    return self.file(directory, &name).map(|()| Some(here));
                }
                Err(Errno::ENOENT) => {
                    let mode = if is_last && kind == Kind::Scratch { 0o1777 } else { 0o755 };
                    mkdirat(directory, &*name, Mode::from_bits_retain(mode))?;
                    self.own(directory, &name)?;
                    open(directory, &name)?
                }
                found => found?,
            };
            match SFlag::from_bits_truncate(fstat(&found)?.st_mode & SFlag::S_IFMT.bits()) {
                SFlag::S_IFLNK => {
                    links = links.checked_sub(1).ok_or(Errno::ELOOP)?;
                    let target = PathBuf::from(readlinkat(directory, &*name)?);
                    if target.is_absolute() {
                        directories.clear();
                    }
                    pending = names(&target).chain(pending).collect();
                }
                SFlag::S_IFDIR => directories.push((name, found)),
                _ if is_last => return Ok(Some(here)),
                _ => return Err(Errno::ENOTDIR),
            }
        }
        Ok(Some(directories.into_iter().map(|(name, _)| name).collect()))
    }

    fn file(&self, directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        openat(directory, name, flags, Mode::from_bits_retain(0o644))?;
        self.own(directory, name)
    }

    fn link(
        &self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        target: &str,
        replaces: bool,
    ) -> Result<(), Errno> {
        match symlinkat(target, directory, name) {
            Err(Errno::EEXIST)
                if !replaces || readlinkat(directory, name).is_ok_and(|found| found == target) =>
            {
                return Ok(());
            }
            Err(Errno::EEXIST) => {
                unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)?;
                symlinkat(target, directory, name)?;
            }
            made => made?,
        }
        self.own(directory, name)
    }

    fn own(&self, directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        let (user, group) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        if user.is_root() && group.as_raw() == 0 {
            return Ok(());
        }
        fchownat(directory, name, Some(user), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)
    }
}

/// Opens one name, of whatever type it is, without following a link.
fn open(directory: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    openat(directory, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// The names of a path, `..` among them.
fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

#[cfg(test)]
#[path = "mount_points_test.rs"]
mod tests;
