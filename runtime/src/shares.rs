//! Host file trees in the VM's share: cloned where the relay sees them, attached in the VMM's mount namespace.
//!
//! No mount shows on the host, and none can be left over: a cloned tree lives in a descriptor until it is attached, and
//! dies with the VMM's namespace afterwards.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{SFlag, fstat};

use crate::lower::{IdMap, ROOTFS_SHARE, Tree, id_map};
use crate::sys::mount::{self, attr};
use crate::sys::{process, user_namespace};

/// The shares' folder in the VMM's mount namespace.
const SHARES: &str = "/shares";

/// The file system of layers.
const OVERLAY: &str = "overlay";

/// Why the guest cannot get a tree.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// A source cannot be cloned.
    #[error("{property}: cannot share {path} with the VM: {cause}")]
    Clone {
        /// JSON path of the property that names it.
        property: String,
        /// The source.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// An overlay cannot be mounted.
    #[error("{property}: cannot mount the overlay of {options:?} on the host: {cause}")]
    Overlay {
        /// JSON path of the mount.
        property: String,
        /// Its options.
        options: String,
        /// Why.
        cause: io::Error,
    },
    /// Its IDs cannot be mapped.
    #[error(
        "{property}: cannot map the IDs of {path}: {cause} (its file system is {fstype}, and the host's kernel maps \
         IDs of some only)"
    )]
    MapIds {
        /// JSON path of the source.
        property: String,
        /// The source.
        path: PathBuf,
        /// Type of its file system.
        fstype: String,
        /// Why.
        cause: io::Error,
    },
    /// It cannot be attached.
    #[error("cannot attach the container's files to the VM: {0}")]
    Attach(String),
}

/// Clones the host's tree: private, without set-user-ID and device nodes, read-only where the container may not write.
/// To be called in the mount namespace whose view of the tree counts; it has to be the caller's own.
///
/// # Errors
/// [`ShareError::Clone`] or [`ShareError::Overlay`].
pub fn clone_tree(tree: &Tree) -> Result<OwnedFd, ShareError> {
    let readonly = if tree.readonly { attr::RDONLY } else { 0 };
    if let Some(options) = &tree.overlay {
        nix::mount::mount(
            Some(OVERLAY),
            &tree.source,
            Some(OVERLAY),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .map_err(|cause| ShareError::Overlay {
            property: tree.property.clone(),
            options: options.clone(),
            cause: cause.into(),
        })?;
    }
    let cloned = if tree.no_follow {
        mount::clone_tree_no_follow(&tree.source, tree.recursive)
    } else {
        mount::clone_tree(&tree.source, tree.recursive)
    };
    let uncovered = match &tree.overlay {
        Some(_) => umount2(&tree.source, MntFlags::MNT_DETACH).map_err(io::Error::from),
        None => Ok(()),
    };
    cloned
        .and_then(|clone| {
            uncovered?;
            mount::restrict(clone.as_fd(), attr::NOSUID | attr::NODEV | readonly)?;
            Ok(clone)
        })
        .map_err(|cause| ShareError::Clone {
            property: tree.property.clone(),
            path: tree.source.clone(),
            cause,
        })
}

/// Maps the IDs of a cloned tree, where that is asked for.
///
/// # Errors
/// [`ShareError::MapIds`].
pub fn map_ids(tree: &Tree, clone: BorrowedFd<'_>) -> Result<(), ShareError> {
    let Some(IdMap { mappings, recursive }) = &tree.id_map else { return Ok(()) };
    user_namespace::create(&id_map(&mappings.users), &id_map(&mappings.groups))
        .and_then(|namespace| mount::map_ids(clone, namespace.as_fd(), *recursive))
        .map_err(|cause| ShareError::MapIds {
            property: tree.property.clone(),
            path: tree.source.clone(),
            fstype: file_system_of(&tree.source),
            cause,
        })
}

/// The type of the file system that a path is on, as /proc/self/mountinfo has it.
fn file_system_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_line = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let point = Path::new(mount.split(' ').nth(4)?);
        let fstype = file_system.split(' ').next()?.to_owned();
        path.starts_with(point).then(|| (point.components().count(), fstype))
    };
    // Of several mounts on one point the last is on top.
    let nearest = mounts.lines().filter_map(of_line).max_by_key(|(depth, _)| *depth);
    nearest.map_or_else(|| "unknown".to_owned(), |(_, fstype)| fstype)
}

/// Attaches cloned trees below `/shares/FOLDER` of the VMM's mount namespace.
///
/// # Errors
/// [`ShareError::Attach`].
pub fn attach(vmm: BorrowedFd<'_>, folder: &str, trees: &[(String, OwnedFd)]) -> Result<(), ShareError> {
    let folder = Path::new(SHARES).join(folder);
    inside(vmm, || {
        fs::DirBuilder::new().mode(0o755).create(&folder)?;
        trees.iter().try_for_each(|(name, tree)| {
            let target = folder.join(name);
            let is_folder =
                SFlag::from_bits_truncate(fstat(tree)?.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
            if is_folder {
                fs::DirBuilder::new().mode(0o755).create(&target)?;
            } else {
                fs::File::create_new(&target)?;
            }
            mount::attach(tree.as_fd(), &target)
        })
    })
}

/// Attaches cloned folders below `/shares/FOLDER`, which the guest is served already. What is there of the same name
/// stays: it is the same.
///
/// # Errors
/// [`ShareError::Attach`].
pub fn attach_volumes(
    vmm: BorrowedFd<'_>,
    folder: &str,
    volumes: &[(String, OwnedFd)],
) -> Result<(), ShareError> {
    let folder = Path::new(SHARES).join(folder);
    inside(vmm, || {
        // Two containers of a pod may be created at the same time.
        let lock = fs::File::open(&folder)?;
        lock.lock()?;
        let device = lock.metadata()?.dev();
        volumes.iter().try_for_each(|(name, tree)| {
            let target = folder.join(name);
            match fs::DirBuilder::new().mode(0o755).create(&target) {
                // Whoever has made it may have died before it was a mount.
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                    if fs::metadata(&target)?.dev() != device {
                        return Ok(());
                    }
                }
                made => made?,
            }
            mount::attach(tree.as_fd(), &target)
        })
    })
}

/// Takes away what [`attach`] has attached; the guest must not be served it any more.
///
/// # Errors
/// [`ShareError::Attach`].
pub fn detach(vmm: BorrowedFd<'_>, folder: &str) -> Result<(), ShareError> {
    let folder = Path::new(SHARES).join(folder);
    inside(vmm, || {
        let entries = match fs::read_dir(&folder) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            // One that was never mounted is only a folder or file to remove; the guest's root can make links here too.
            let _ = umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
            fs::remove_dir(&path).or_else(|_| fs::remove_file(&path))?;
        }
        fs::remove_dir(&folder)
    })
}

/// Makes the attached rootfs read-only, once the agent has made its mount points in it.
///
/// # Errors
/// [`ShareError::Attach`].
pub fn seal_rootfs(vmm: BorrowedFd<'_>, folder: &str) -> Result<(), ShareError> {
    let rootfs = Path::new(SHARES).join(folder).join(ROOTFS_SHARE);
    inside(vmm, || {
        let rootfs = fs::File::open(&rootfs)?;
        mount::restrict(rootfs.as_fd(), attr::RDONLY)
    })
}

/// Does something in the VMM's mount namespace, in a child process: only a process of its own may enter it.
fn inside(vmm: BorrowedFd<'_>, body: impl FnOnce() -> io::Result<()>) -> Result<(), ShareError> {
    let failed = |cause: io::Error| ShareError::Attach(cause.to_string());
    let (mut problem, mut reporter) = io::pipe().map_err(failed)?;
    let child = process::clone(0, None, || {
        let result = setns(vmm, CloneFlags::CLONE_NEWNS).map_err(io::Error::from).and_then(|()| body());
        if let Err(cause) = result {
            // The exit status tells of the failure even if its reason cannot be written.
            let _ = write!(reporter, "{cause}");
            return 1;
        }
        0
    })
    .map_err(failed)?;
    drop(reporter);
    let mut text = String::new();
    let read = problem.read_to_string(&mut text);
    let status = child.reap().map_err(failed)?;
    read.map_err(failed)?;
    match status {
        nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
        _ if text.is_empty() => Err(ShareError::Attach(format!("its helper ended with {status:?}"))),
        _ => Err(ShareError::Attach(text)),
    }
}
