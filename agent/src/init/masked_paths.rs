//! `linux.maskedPaths` and `linux.readonlyPaths`, before the container's root is the root.
//!
//! The image is hostile, and so may be a container that shares a volume with this one: paths are resolved beneath the
//! root, to descriptors, and a file is hidden by the guest's own null device, whatever the container has as /dev/null.
//! Paths that do not exist are skipped: the lists name files of kernels with other configurations. Anything else that
//! keeps a path from being hidden keeps the container from being created.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat::{Mode, SFlag, fstat, makedev, mknod},
};
use stockade_sys::{
    mount_api::{self, MountAttributes, attr},
    resolve::Root,
};

use crate::{
    error::{Context, Result},
    selinux,
};

/// The guest's own null device, which no container sees.
const NULL: &str = "/run/null";

/// Makes the null device, unless it exists; only the guest's root can do that.
pub fn provide_null() -> Result<()> {
    let mode = Mode::from_bits_truncate(0o666);
    match mknod(NULL, SFlag::S_IFCHR, mode, null_number()) {
        Err(Errno::EEXIST) => Ok(()),
        made => made.or_internal(|| format!("make {NULL}")),
    }
}

/// The null device, open for reading and writing.
pub fn null_for_a_process() -> Result<OwnedFd> {
    provide_null()?;
    open(NULL, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).or_internal(|| format!("open {NULL}"))
}

/// Hides the masked paths, and makes the others read-only. What hides a directory gets the label.
pub fn apply(root: &Root, masked: &[String], readonly: &[String], label: Option<&str>) -> Result<()> {
    for path in readonly {
        find(root, path)
            .and_then(|found| found.map_or(Ok(()), |found| protect(&found)))
            .or_spec(|| format!("linux.readonlyPaths: make {path} read-only"))?;
    }
    let mut covers = Covers { label, ..Covers::default() };
    for path in masked {
        find(root, path)
            .and_then(|found| found.map_or(Ok(()), |found| covers.hide(&found)))
            .or_spec(|| format!("linux.maskedPaths: mask {path}"))?;
    }
    Ok(())
}

/// Opens what is at a path; `None` if there is nothing.
fn find(root: &Root, path: &str) -> Result<Option<OwnedFd>, Errno> {
    match root.open(Path::new(path), OFlag::O_PATH) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        found => found.map(Some),
    }
}

fn protect(found: &OwnedFd) -> Result<(), Errno> {
    let tree = mount_api::clone_tree(found, true)?;
    mount_api::set_attributes(&tree, MountAttributes::READONLY, true)?;
    mount_api::attach(&tree, found)
}

/// The null device and the empty directory that hide files and directories. One empty directory serves for all, because
/// a separate file system for each would cost more than the mount.
#[derive(Default)]
struct Covers<'a> {
    label: Option<&'a str>,
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl Covers<'_> {
    fn hide(&mut self, found: &OwnedFd) -> Result<(), Errno> {
        let is_directory = fstat(found)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        match (is_directory, &self.empty) {
            (false, _) => {
                let null = self.null.take().map_or_else(open_null, Ok)?;
                let hidden =
                    mount_api::clone_tree(&null, false).and_then(|tree| mount_api::attach(tree, found));
                self.null = Some(null);
                hidden
            }
            (true, Some(empty)) => {
                let tree = mount_api::clone_tree(empty.as_fd(), false)?;
                mount_api::attach(&tree, found)
            }
            (true, None) => {
                let label = self.label.map(selinux::option).unwrap_or_default();
                let options = format!("ro,size=0k,nr_inodes=1,{label}");
                let empty = mount_api::new_file_system("tmpfs", "tmpfs", &options, attr::RDONLY)?;
                mount_api::attach(&empty, found)?;
                self.empty = Some(empty);
                Ok(())
            }
        }
    }
}

/// Opens the null device, and checks that it is that device.
fn open_null() -> Result<OwnedFd, Errno> {
    let null = open(NULL, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let found = fstat(&null)?;
    let is_device = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
    if is_device && found.st_rdev == null_number() { Ok(null) } else { Err(Errno::ENODEV) }
}

fn null_number() -> libc::dev_t {
    makedev(1, 3)
}
