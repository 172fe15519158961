//! What callers find in the container's directories through its relay (`podman cp`, `/proc/PID/root`): bind mounts and volumes
//! are those of the container, so that what is written there is the container's. What exists only in the guest, a tmpfs
//! for example, refuses every access: what was written below such a mount would be lost.
//!
//! The rootfs and the trees are hostile content, and containers of the pod may change them meanwhile: destinations are
//! looked up beneath the root, as the guest's agent does it.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat, umask};
use stockade_protocol::container::MountSource;
use stockade_protocol::share_options::ShareOptions;
use stockade_sys::mount_api::{self, MountAttributes, attr};
use stockade_sys::resolve::{Missing, Root};

use super::error::{RelayError, system};
use crate::lower::plan::{GuestPlan, PlannedMount, PlannedSource};
use crate::sys::mount::HARMLESS;
use crate::vm::{Tree, shares};

/// The place of the relay's own procfs.
const PROC: &str = "/proc";

/// The device for making a file system that nobody serves.
const FUSE: &str = "/dev/fuse";

/// Makes the mounts of a container on its root, a mount of its rootfs that is attached at this path. Returns the root,
/// which is another one after a mount on `/`.
pub(super) fn make(
    rootfs: OwnedFd,
    at: &Path,
    container: &GuestPlan,
    trees: &[Tree],
) -> Result<OwnedFd, RelayError> {
    // The modes are as they are meant.
    let former = umask(Mode::empty());
    let owner = container.id_mappings.as_ref();
    let (user, group) = owner.and_then(|ids| ids.user(0).zip(ids.group(0))).unwrap_or((0, 0));
    let again = rootfs.try_clone().map_err(system("rootfs"))?;
    let mut view = View {
        root: Root::new(again).owned_by(user, group),
        top: rootfs,
        at,
        trees: trees.iter().map(|tree| (tree.name.as_str(), tree)).collect(),
        refusing: None,
        holding: Vec::new(),
    };
    let mounts = &container.mounts;
    mounts.iter().enumerate().try_for_each(|(index, mount)| {
        let has_mounts = mounts[index + 1..].iter().any(|later| is_below(later, mount));
        view.add(mount, has_mounts).map_err(|cause| {
            RelayError::Failed(format!(
                "mounts[{index}]: cannot mount {} where engines look into the container: {cause}",
                mount.destination
            ))
        })
    })?;
    umask(former);
    for mount in &view.holding {
        mount_api::set_attributes(mount, MountAttributes::READONLY, false)
            .map_err(|errno| system("make a mount read-only")(errno.into()))?;
    }
    Ok(view.top)
}

fn is_below(mount: &PlannedMount, other: &PlannedMount) -> bool {
    let [mount, other] = [mount, other].map(|mount| Path::new(&mount.destination));
    mount.starts_with(other) && mount.components().ne(other.components())
}

struct View<'a> {
    root: Root,
    /// The root that will be returned.
    top: OwnedFd,
    at: &'a Path,
    trees: HashMap<&'a str, &'a Tree>,
    /// A mount that refuses every access.
    refusing: Option<OwnedFd>,
    /// Mounts that refuse every access except to the mounts in them.
    holding: Vec<OwnedFd>,
}

impl View<'_> {
    fn add(&mut self, mount: &PlannedMount, has_mounts: bool) -> Result<(), Errno> {
        let destination = Path::new(&mount.destination);
        // The relay's own procfs is on top of everything there.
        if destination.starts_with(PROC) {
            return Ok(());
        }
        let share = match &mount.source {
            PlannedSource::Guest(MountSource::Share(share) | MountSource::Copy(share)) => share,
            PlannedSource::Guest(MountSource::FileSystem { .. })
            | PlannedSource::Disk(..)
            | PlannedSource::Scratch(_) => {
                return self.refuse(mount, has_mounts);
            }
            // This is not a file system, or nothing can be written to it.
            PlannedSource::Guest(_) => return Ok(()),
        };
        let name = share.rsplit('/').next().unwrap_or(share);
        let Some(tree) = self.trees.get(name) else { return Ok(()) };
        if tree.overlay.is_some() {
            return self.refuse(mount, has_mounts);
        }
        // The source may have gone since it was cloned for the guest; then the guest's has gone too.
        let Ok(clone) = shares::clone_tree(tree) else { return self.refuse(mount, has_mounts) };
        if tree.has_kernel_files {
            mount_api::set_attributes(&clone, MountAttributes::READONLY, true)?;
        }
        let is_directory = fstat(&clone)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        if tree.id_map.is_some() {
            // Its owners would be others than in the container. What covers a directory cannot cover a single file.
            if is_directory {
                return self.refuse(mount, has_mounts);
            }
            mount_api::set_attributes(&clone, MountAttributes::READONLY, false)?;
        }
        let missing = if is_directory { Missing::Directory } else { Missing::File };
        self.attach(clone, mount, missing).map(drop)
    }

    /// Covers what is below a mount that only the guest has.
    fn refuse(&mut self, mount: &PlannedMount, has_mounts: bool) -> Result<(), Errno> {
        let is_scratch = matches!(&mount.source, PlannedSource::Guest(MountSource::FileSystem { fstype, .. })
            if fstype == "tmpfs" && !mount.has_mode());
        let missing = if is_scratch { Missing::Scratch } else { Missing::Directory };
        if !has_mounts {
            let cover = match &self.refusing {
                Some(refusing) => mount_api::clone_tree(refusing, false),
                None => refusing(),
            };
            if let Ok(cover) = cover {
                let cover = self.attach(cover, mount, missing)?;
                self.refusing = self.refusing.take().or(cover);
                return Ok(());
            }
        }
        let cover = mount_api::new_file_system("tmpfs", "stockade", "mode=0755", HARMLESS & !attr::RDONLY)?;
        let cover = self.attach(cover, mount, missing)?;
        self.holding.extend(cover);
        Ok(())
    }

    /// Attaches a mount; `None` if its destination is not possible, or is inside a mount that refuses every access.
    fn attach(
        &mut self,
        tree: OwnedFd,
        mount: &PlannedMount,
        missing: Missing,
    ) -> Result<Option<OwnedFd>, Errno> {
        let destination = Path::new(&mount.destination);
        let options = match &mount.source {
            PlannedSource::Guest(MountSource::Share(_) | MountSource::Copy(_)) => {
                ShareOptions::decode(&mount.data).unwrap_or_default()
            }
            _ => ShareOptions::default(),
        };
        let target = if options.is_unfollowed {
            self.root.open_or_create_unfollowed(destination, missing)
        } else {
            self.root.open_or_create(destination, missing)
        };
        // If the destination is not possible, the agent reports the error.
        let Ok(target) = target else { return Ok(None) };
        match mount_api::attach(&tree, &target) {
            Err(Errno::ENOTDIR | Errno::ENOENT) => return Ok(None),
            attached => attached?,
        }
        if self.root.is(&target)? {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            self.root.replace(open(self.at, flags, Mode::empty())?);
            self.top = open(self.at, flags, Mode::empty())?;
        }
        Ok(Some(tree))
    }
}

/// A file system whose server has gone: every access is refused with "Transport endpoint is not connected".
fn refusing() -> Result<OwnedFd, Errno> {
    let device = OpenOptions::new().read(true).write(true).open(FUSE).map_err(|_| Errno::ENODEV)?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_fd().as_raw_fd());
    mount_api::new_file_system("fuse", "stockade", &options, HARMLESS)
}
