//! Disks of a container: block devices of the VM, in hotplug slots, which the container has as device nodes or as mounts.
//!
//! The host names a disk by its slot. The agent binds the driver, and puts the numbers that the guest's kernel has
//! given to the disk into the container's specification. When the container goes, the driver is unbound, but not before
//! the file system on the disk is unmounted: the kernel does that a moment after the last process of the mount
//! namespace has ended.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::{
        stat::{Mode, SFlag, makedev, mknod},
        timerfd::TimerFd,
    },
};
use stockade_protocol::container::{Container, DeviceKind, Mount, MountSource};

use crate::{
    error::{Context, ErrorKind, Result, error},
    poller::Token,
    slots::{self, Slots},
};

/// The directory with a node for each disk, named by its slot.
pub const DIRECTORY: &str = "/run/disks";

/// How often to check whether a file system is unmounted before giving up, which is after some seconds.
const MAX_LOOKS: u32 = 250;

/// The disks of one container, which are released with it.
#[derive(Debug, Default)]
pub struct Disks {
    slots: Vec<u8>,
    /// Whether there are others than those that end with the container.
    pub outlive_it: bool,
    looks: u32,
    /// The timer of the next check, while one is due.
    pub due: Option<(TimerFd, Token)>,
}

impl Disks {
    /// Binds the drivers of all disks of a container, and replaces their slots in the specification by the guest's
    /// devices.
    pub fn attach(spec: &mut Container) -> Result<Self> {
        let mut disks = Self::default();
        let of_devices: Vec<_> =
            spec.devices.iter().filter(|device| device.kind == DeviceKind::Disk).collect();
        let of_mounts = spec.mounts.iter().filter_map(|mount| match mount.source {
            MountSource::Disk { slot, .. } | MountSource::Scratch { slot } => Some(slot),
            _ => None,
        });
        let mut wanted = of_devices.iter().map(|device| slot(device.major)).collect::<Result<Vec<u8>>>()?;
        wanted.extend(of_mounts);
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(disks);
        }
        let is_kept = |mount: &Mount| matches!(mount.source, MountSource::Disk { .. });
        disks.outlive_it = !of_devices.is_empty() || spec.mounts.iter().any(is_kept);
        let bus = Slots::open()?;
        let mut numbers = Vec::new();
        for slot in wanted {
            // The slot is recorded before the driver is bound, so that it is unbound whatever fails.
            disks.slots.push(slot);
            bus.bind(slot)?;
            let number = number(&bus, slot)?;
            make_node(slot, number)?;
            numbers.push((u32::from(slot), number));
        }
        let find = |slot: u32| numbers.iter().find(|(known, _)| *known == slot).map(|(_, number)| *number);
        for device in spec.devices.iter_mut().filter(|device| device.kind == DeviceKind::Disk) {
            if let Some((major, minor)) = find(device.major) {
                (device.kind, device.major, device.minor) = (DeviceKind::Block, major, minor);
            }
        }
        for rule in spec.cgroup.devices.iter_mut().filter(|rule| rule.kind == Some(DeviceKind::Disk)) {
            if let Some((major, minor)) = rule.major.and_then(find) {
                (rule.kind, rule.major, rule.minor) = (Some(DeviceKind::Block), Some(major), Some(minor));
            }
        }
        for mount in &mut spec.mounts {
            if let MountSource::Disk { slot, fstype } = &mount.source {
                let source = node(*slot).display().to_string();
                mount.source = MountSource::FileSystem { fstype: fstype.clone(), source };
            }
        }
        Ok(disks)
    }

    /// Whether there are no disks.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether no file system on the disks is mounted any more, or the wait for that was long enough.
    pub fn are_free(&mut self) -> bool {
        let is_busy = self.looks < MAX_LOOKS && self.slots.iter().any(|slot| is_busy(&node(*slot)));
        self.looks = if is_busy { self.looks + 1 } else { 0 };
        !is_busy
    }

    /// Writes cached data to the disks.
    pub fn flush(&self) {
        if self.outlive_it {
            nix::unistd::sync();
        }
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        if self.slots.is_empty() {
            return;
        }
        self.flush();
        let unbound = Slots::open().and_then(|bus| self.slots.iter().try_for_each(|slot| bus.unbind(*slot)));
        if let Err(error) = unbound {
            eprintln!("stockade-agent: {}", error.message);
        }
        for slot in &self.slots {
            // A node that could not be made does not exist.
            let _ = fs::remove_file(node(*slot));
        }
    }
}

fn slot(number: u32) -> Result<u8> {
    u8::try_from(number).map_err(|_| error(ErrorKind::Spec, format!("{number} is not a slot of a disk")))
}

/// The node of the disk in a slot.
pub fn node(slot: u8) -> PathBuf {
    Path::new(DIRECTORY).join(slot.to_string())
}

/// The numbers that the guest's kernel has given to the disk in a slot.
fn number(bus: &Slots, slot: u8) -> Result<(u32, u32)> {
    let read = || -> io::Result<Option<(u32, u32)>> {
        let Some(disk) = bus.device(slot, "block")? else { return Ok(None) };
        let text = fs::read_to_string(disk.join("dev"))?;
        let numbers = text.trim_end().split_once(':');
        Ok(numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?))))
    };
    let name = || slots::name(slot);
    read().or_internal(|| format!("look for the disk of {}", name()))?.ok_or_else(|| {
        error(ErrorKind::Internal, format!("there is no disk in {}; is it in its slot?", name()))
    })
}

fn make_node(slot: u8, (major, minor): (u32, u32)) -> Result<()> {
    let path = node(slot);
    let make = || -> Result<(), Errno> {
        match nix::unistd::mkdir(DIRECTORY, Mode::S_IRWXU) {
            Err(Errno::EEXIST) => {}
            made => made?,
        }
        let _ = fs::remove_file(&path);
        mknod(&path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major.into(), minor.into()))
    };
    make().or_internal(|| format!("make {}", path.display()))
}

/// Whether the kernel uses a block device, for example because a file system on it is mounted.
fn is_busy(node: &Path) -> bool {
    let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(node);
    opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}
