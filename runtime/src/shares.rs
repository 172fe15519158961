//! Host file trees in the VM's share: cloned where the relay sees them, attached in the VMM's mount namespace.
//!
//! No mount shows on the host, and none can be left over: a cloned tree lives in a descriptor until it is attached, and
//! dies with the VMM's namespace afterwards.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{SFlag, fstat};

use crate::lower::{ROOTFS_SHARE, Tree};
use crate::sys::mount::{self, attr};
use crate::sys::process;

/// The shares' folder in the VMM's mount namespace.
const SHARES: &str = "/shares";

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
    /// It cannot be attached.
    #[error("cannot attach the container's files to the VM: {0}")]
    Attach(String),
}

/// Clones the host's tree: private, without set-user-ID and device nodes, read-only where the container may not write.
/// To be called in the mount namespace whose view of the tree counts.
///
/// # Errors
/// [`ShareError::Clone`].
pub fn clone_tree(tree: &Tree) -> Result<OwnedFd, ShareError> {
    let readonly = if tree.readonly { attr::RDONLY } else { 0 };
    mount::clone_tree(&tree.source, tree.recursive)
        .and_then(|clone| {
            mount::restrict(clone.as_fd(), attr::NOSUID | attr::NODEV | readonly)?;
            Ok(clone)
        })
        .map_err(|cause| ShareError::Clone {
            property: tree.property.clone(),
            path: tree.source.clone(),
            cause,
        })
}

/// Attaches cloned trees below `/shares/FOLDER` of the VMM's mount namespace.
///
/// # Errors
/// [`ShareError::Attach`].
pub fn attach(vmm: BorrowedFd<'_>, folder: &str, trees: &[(String, OwnedFd)]) -> Result<(), ShareError> {
    let folder = Path::new(SHARES).join(folder);
    inside(vmm, || {
        fs::DirBuilder::new().mode(0o755).create(&folder)?;
        for (name, tree) in trees {
            let target = folder.join(name);
            let is_folder =
                SFlag::from_bits_truncate(fstat(tree)?.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
            if is_folder {
                fs::DirBuilder::new().mode(0o755).create(&target)?;
            } else {
                fs::File::create_new(&target)?;
            }
            mount::attach(tree.as_fd(), &target)?;
        }
        Ok(())
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
            // One that was never mounted is only a folder or file to remove.
            let _ = umount2(&path, MntFlags::MNT_DETACH);
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
