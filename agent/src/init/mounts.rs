//! `mounts`, in the order of config.json.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, fstat},
};
use stockade_protocol::container::{Mount, MountSource};

use super::{
    copy_up,
    resolve::{Missing, Root},
    rootfs::{open_shared, path_of},
};
use crate::{
    error::{Context, Result},
    mount_api::{self, MountAttributes, attr},
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

/// Makes all mounts.
pub fn mount_all(root: &Root, mounts: &[Mount]) -> Result<Mounted> {
    let mut mounted = Mounted::default();
    for entry in mounts {
        match &entry.source {
            MountSource::Share(path) => mount_share(root, entry, path)?,
            MountSource::FileSystem { fstype, source } => {
                mount_file_system(root, entry, fstype, source, &mut mounted)?;
            }
        }
    }
    Ok(mounted)
}

/// Whether something of the host's is the container's whole /dev, which is then left as it is.
pub fn share_covers_dev(mounts: &[Mount]) -> bool {
    mounts.iter().any(|entry| {
        let names = Path::new(&entry.destination).components().filter(|part| *part != Component::RootDir);
        matches!(entry.source, MountSource::Share(_)) && names.eq(Path::new("dev").components())
    })
}

fn mount_share(root: &Root, entry: &Mount, share: &str) -> Result<()> {
    let step = || format!("mount the shared {share} on {}", entry.destination);
    let source = open_shared(share).or_spec(step)?;
    let kind = SFlag::from_bits_truncate(fstat(&source).or_spec(step)?.st_mode & SFlag::S_IFMT.bits());
    let missing = if kind == SFlag::S_IFDIR { Missing::Folder } else { Missing::File };
    let target = root.open_or_create(Path::new(&entry.destination), missing).or_spec(step)?;
    let tree = mount_api::clone_tree(&source, entry.flags & libc::MS_REC != 0).or_spec(step)?;
    let attributes = attributes(entry.flags);
    if attributes != MountAttributes::default() {
        mount_api::set_attributes(&tree, attributes, false).or_spec(step)?;
    }
    mount_api::attach(&tree, &target).or_spec(step)?;
    propagate(&tree, entry)
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
    let target = root.open_or_create(destination, Missing::Folder).or_spec(step)?;
    // In the guest there is only the second version, whatever the host has.
    let fstype = if fstype == "cgroup" { "cgroup2" } else { fstype };
    let fills_later = fstype == "tmpfs" && entry.flags & libc::MS_RDONLY != 0;
    let mut flags = MsFlags::from_bits_retain(entry.flags as libc::c_ulong);
    if fills_later {
        flags.remove(MsFlags::MS_RDONLY);
    }
    let data = Some(entry.data.as_str()).filter(|data| !data.is_empty());
    mount(Some(source), path_of(&target).as_str(), Some(fstype), flags, data).or_spec(step)?;
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

/// The new mount looks like the folder that it covers, but where its options say otherwise.
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
