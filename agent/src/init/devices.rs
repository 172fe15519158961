//! Device nodes: those that every container has (runtime-spec config-linux, "Default Devices") and
//! `linux.devices`.
//!
//! On a tmpfs they are made in place. On a shared file system that is not possible (the host mounts it without
//! devices), so a node on a tmpfs of the guest is bound over an empty file there. The same is done in a user namespace,
//! where nobody can make nodes at all.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, readlinkat},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{
        stat::{Mode, SFlag, makedev, mknodat},
        statfs::{TMPFS_MAGIC, fstatfs},
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat},
};
use stockade_protocol::container::{
    Container, DEFAULT_DEVICES, DEVICE_LINKS, Device, DeviceKind, PTMX, share_covers_dev,
};
use stockade_sys::{
    mount_api,
    resolve::{Missing, Root},
};

use super::rootfs::path_of;
use crate::{
    error::{Context, ErrorKind, Result, error},
    selinux,
};

/// Where the tmpfs for nodes that are bound is mounted.
pub const STAGE: &str = "/run/devices";

/// Makes all nodes and links. If the process cannot make nodes, `prepared` has them.
pub fn create_all(root: &Root, spec: &Container, prepared: Option<OwnedFd>) -> Result<()> {
    let mut stage = match prepared {
        Some(nodes) => {
            Stage::of_prepared(nodes).or_internal(|| "mount the prepared device nodes".to_owned())?
        }
        None => Stage::default(),
    };
    for (index, device) in nodes(spec).iter().enumerate() {
        create(root, device, index, &mut stage).or_spec(|| format!("create device {}", device.path))?;
    }
    if !share_covers_dev(&spec.mounts) {
        create_links(root)?;
    }
    stage.leave().or_internal(|| "unmount the device nodes' stage".to_owned())
}

/// Makes all nodes for a container in whose user namespace nobody can make them: a detached file system with a node for
/// each, named by its index.
pub fn prepare(spec: &Container, label: Option<&str>) -> Result<Option<OwnedFd>> {
    let nodes = nodes(spec);
    if nodes.is_empty() {
        return Ok(None);
    }
    let options = format!("mode=0755,{}", label.map(selinux::option).unwrap_or_default());
    let directory = mount_api::new_file_system("tmpfs", "tmpfs", &options, 0)
        .or_internal(|| "make a file system for device nodes".to_owned())?;
    for (index, device) in nodes.iter().enumerate() {
        let step = || format!("create device {}", device.path);
        let mappings = spec.id_mappings.as_ref();
        let owner = mappings.map_or(Some(device.uid), |ids| ids.user(device.uid));
        let group = mappings.map_or(Some(device.gid), |ids| ids.group(device.gid));
        let (Some(uid), Some(gid)) = (owner, group) else {
            let message = format!("{}: its owner is not in linux.uidMappings and linux.gidMappings", step());
            return Err(error(ErrorKind::Spec, message));
        };
        let device = Device { uid, gid, ..device.clone() };
        make_node(&directory, Path::new(&index.to_string()), &device).or_spec(step)?;
    }
    Ok(Some(directory))
}

/// `linux.devices` and the default ones.
fn nodes(spec: &Container) -> Vec<Device> {
    let default: &[_] = if share_covers_dev(&spec.mounts) { &[] } else { &DEFAULT_DEVICES };
    let default = default.iter().map(|(path, major, minor)| default_device(path, *major, *minor));
    spec.devices.iter().cloned().chain(default).collect()
}

fn default_device(path: &str, major: u32, minor: u32) -> Device {
    Device { path: path.to_owned(), kind: DeviceKind::Char, major, minor, mode: 0o666, uid: 0, gid: 0 }
}

/// Makes one node; what is there already stays, as with other runtimes.
fn create(root: &Root, device: &Device, index: usize, stage: &mut Stage) -> Result<(), Errno> {
    let path = Path::new(&device.path);
    let (directory, name) = root.parent(path)?;
    let can_make = !stage.is_prepared || device.kind == DeviceKind::Fifo;
    let made = if can_make && fstatfs(&directory)?.filesystem_type() == TMPFS_MAGIC {
        make_node(&directory, name, device)
    } else {
        let target = root.open_or_create(path, Missing::File)?;
        let node = stage.node(device, index)?;
        mount(Some(&node), path_of(&target).as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
    };
    match made {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

fn make_node(directory: &OwnedFd, name: &Path, device: &Device) -> Result<(), Errno> {
    let (kind, number) = match device.kind {
        DeviceKind::Char => (SFlag::S_IFCHR, makedev(device.major.into(), device.minor.into())),
        DeviceKind::Block => (SFlag::S_IFBLK, makedev(device.major.into(), device.minor.into())),
        DeviceKind::Fifo => (SFlag::S_IFIFO, 0),
        DeviceKind::Disk => return Err(Errno::ENXIO),
    };
    mknodat(directory, name, kind, Mode::from_bits_truncate(device.mode), number)?;
    if (device.uid, device.gid) == (0, 0) {
        return Ok(());
    }
    let owner = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    fchownat(directory, name, Some(owner.0), Some(owner.1), AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn create_links(root: &Root) -> Result<()> {
    let dev = root
        .open_or_create(Path::new("/dev"), Missing::Directory)
        .or_spec(|| "create /dev in the root file system".to_owned())?;
    for (name, target) in DEVICE_LINKS {
        let mut linked = symlinkat(target, &dev, name);
        // In a read-only root the host has made it.
        if linked == Err(Errno::EEXIST) && readlinkat(&dev, name).is_ok_and(|found| found == target) {
            continue;
        }
        // An image's own ptmx would be a node of another devpts.
        if linked == Err(Errno::EEXIST) && name == PTMX {
            linked =
                unlinkat(&dev, name, UnlinkatFlags::NoRemoveDir).and_then(|()| symlinkat(target, &dev, name));
        }
        match linked {
            Err(Errno::EEXIST) => {}
            other => other.or_spec(|| format!("link /dev/{name} to {target}"))?,
        }
    }
    Ok(())
}

/// A tmpfs for nodes that are bound. It is mounted for the first node, and detached after the last.
#[derive(Default)]
struct Stage {
    directory: Option<OwnedFd>,
    /// Whether all nodes are there already.
    is_prepared: bool,
}

impl Stage {
    fn of_prepared(nodes: OwnedFd) -> Result<Self, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        mount_api::attach(&nodes, open(STAGE, flags, Mode::empty())?)?;
        Ok(Self { directory: Some(nodes), is_prepared: true })
    }

    /// Makes a node, if it is not there yet; returns its path.
    fn node(&mut self, device: &Device, index: usize) -> Result<PathBuf, Errno> {
        if self.directory.is_none() {
            mount(Some("tmpfs"), STAGE, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))?;
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            self.directory = Some(open(STAGE, flags, Mode::empty())?);
        }
        let Some(directory) = &self.directory else { return Err(Errno::ENOENT) };
        let name = index.to_string();
        if !self.is_prepared {
            make_node(directory, Path::new(&name), device)?;
        }
        Ok(Path::new(STAGE).join(name))
    }

    fn leave(self) -> Result<(), Errno> {
        if self.directory.is_some() { umount2(STAGE, MntFlags::MNT_DETACH) } else { Ok(()) }
    }
}
