//! Trees of the host's files for the VM's share, cloned in the relay's mount namespace.
//!
//! The host sees no mount, and none can be left over: a cloned tree lives in its descriptors. Its attributes are set before
//! anybody else has a descriptor.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, umount2};
use stockade_sys::mount_api::{self, MountAttributes, attr};

use super::tree::{IdMap, Tree};
use crate::sys::user_namespace;

/// The type of file system that has layers.
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
        /// The cause.
        cause: io::Error,
    },
    /// An overlay cannot be mounted.
    #[error("{property}: cannot mount the overlay of {options:?} on the host: {cause}")]
    Overlay {
        /// JSON path of the mount.
        property: String,
        /// Its options.
        options: String,
        /// The cause.
        cause: io::Error,
    },
    /// Its IDs cannot be mapped.
    #[error(
        "{property}: cannot map the IDs of {path}: {cause} (its file system is {fstype}, and the host's kernel can \
         map IDs on some file systems only)"
    )]
    MapIds {
        /// JSON path of the source.
        property: String,
        /// The source.
        path: PathBuf,
        /// Type of its file system.
        fstype: String,
        /// The cause.
        cause: io::Error,
    },
}

/// Clones the host's tree: without set-user-ID and device nodes, read-only where the container may not write; private, unless
/// it follows the host's.
/// Must be called in the mount namespace in which the tree is as the guest should see it; that namespace must be the
/// caller's own.
///
/// # Errors
/// [`ShareError::Clone`] or [`ShareError::Overlay`].
pub fn clone_tree(tree: &Tree) -> Result<OwnedFd, ShareError> {
    let below = if tree.readonly_below { attr::RDONLY } else { 0 };
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
    let cloned = mount_api::clone_tree_at(&tree.source, tree.recursive, tree.no_follow);
    let uncovered = match &tree.overlay {
        Some(_) => umount2(&tree.source, MntFlags::MNT_DETACH),
        None => Ok(()),
    };
    cloned
        .and_then(|clone| {
            uncovered?;
            let harmless = attr::NOSUID | attr::NODEV | below;
            if tree.follows {
                // The caller's own mounts follow the host's, and so do their clones.
                mount_api::set_attributes(&clone, MountAttributes::new(harmless, 0), true)?;
            } else {
                mount_api::restrict(&clone, harmless)?;
            }
            if tree.readonly {
                mount_api::set_attributes(&clone, MountAttributes::READONLY, false)?;
            }
            Ok(clone)
        })
        .map_err(|errno| ShareError::Clone {
            property: tree.property.clone(),
            path: tree.source.clone(),
            cause: errno.into(),
        })
}

/// Maps the IDs of a cloned tree, if the mount asks for it.
///
/// # Errors
/// [`ShareError::MapIds`].
pub fn map_ids(tree: &Tree, clone: BorrowedFd<'_>) -> Result<(), ShareError> {
    let Some(IdMap { mappings, recursive }) = &tree.id_map else { return Ok(()) };
    user_namespace::create(mappings)
        .and_then(|namespace| Ok(mount_api::map_ids(clone, namespace, *recursive)?))
        .map_err(|cause| ShareError::MapIds {
            property: tree.property.clone(),
            path: tree.source.clone(),
            fstype: file_system_of(&tree.source),
            cause,
        })
}

/// The type of the file system that a path is on, by /proc/self/mountinfo.
fn file_system_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_line = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let point = Path::new(mount.split(' ').nth(4)?);
        let fstype = file_system.split(' ').next()?.to_owned();
        path.starts_with(point).then(|| (point.components().count(), fstype))
    };
    // The last of several mounts on one point is on top.
    let nearest = mounts.lines().filter_map(of_line).max_by_key(|(depth, _)| *depth);
    nearest.map_or_else(|| "unknown".to_owned(), |(_, fstype)| fstype)
}
