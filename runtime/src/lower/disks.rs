//! Block devices and disk images of the host that become disks of the VM: in `linux.devices`, as bind mounts of a device node,
//! or as mounts of the file system on one.
//!
//! A device of `linux.devices` becomes a disk only if a rule of `linux.resources.devices` allows it by its numbers:
//! engines write such a rule for a device that a user asks for. A privileged container has every device of the host in
//! the list; these stay nodes without a device, because they include the host's own disks.
//!
//! A device node that is bind-mounted becomes a disk if the rules together allow it, as they would for a process on the host. The node
//! alone says nothing: a container can make one, of any number, in a volume, and its pod's author can have that one mounted
//! (`subPath`).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use stockade_protocol::container::{Device, DeviceKind, DeviceRule};

use super::plan::{Access, DiskNumber, NodeOfDisk, PlannedDevice, PlannedRule};
use crate::oci::bundle::SpecError;

/// Largest number of disks of one container.
pub const MAX: usize = 64;

/// A disk that the VM is to have.
#[derive(Debug)]
pub struct Disk {
    /// JSON path of what asks for it.
    pub property: String,
    /// The device or the image.
    pub file: File,
    /// Whether the guest can only read it.
    pub readonly: bool,
}

/// The disks of a container.
#[derive(Debug, Default)]
pub struct Disks {
    /// The disks, in the order of their numbers.
    pub list: Vec<Disk>,
    /// Nodes that bind mounts ask for, and how they may be used.
    nodes: Vec<(DiskNumber, NodeOfDisk, Access)>,
    /// The rules for devices; the last match counts.
    rules: Vec<DeviceRule>,
}

impl Disks {
    /// None yet, for a container with these rules.
    pub fn under(rules: Vec<DeviceRule>) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Opens a disk; returns its number.
    ///
    /// # Errors
    /// When it cannot be opened, or when somebody else uses it and one of the two writes.
    pub fn add(&mut self, path: &Path, readonly: bool, property: &str) -> Result<DiskNumber, SpecError> {
        let file = open(path, readonly)
            .map_err(|problem| SpecError::new(property, format!("{}: {problem}", path.display())))?;
        self.add_open(Disk { property: property.to_owned(), file, readonly })
    }

    /// Adds a disk that is open; returns its number.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add_open(&mut self, disk: Disk) -> Result<DiskNumber, SpecError> {
        let number = u8::try_from(self.list.len()).ok().filter(|number| usize::from(*number) < MAX);
        let number = number.ok_or_else(|| {
            SpecError::new(&disk.property, format!("a container can have {MAX} disks at most"))
        })?;
        self.list.push(disk);
        Ok(DiskNumber(number))
    }

    /// Adds a device node of the host that is bind-mounted; false if the rules do not let the container read it.
    ///
    /// # Errors
    /// As [`Disks::add`].
    pub fn add_node(
        &mut self,
        source: &Path,
        path: String,
        readonly: bool,
        property: &str,
    ) -> Result<bool, SpecError> {
        let refuse = |problem: String| SpecError::new(property, format!("{}: {problem}", source.display()));
        // What is looked at is what is opened, whatever is at the path by then; and no other kind of device is opened at all.
        let node = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(source);
        let node = node.map_err(|cause| refuse(cause.to_string()))?;
        let found = node.metadata().map_err(|cause| refuse(cause.to_string()))?;
        if !found.file_type().is_block_device() {
            return Err(refuse("is not a block device any more".to_owned()));
        }
        let access = access(&self.rules, (major(found.rdev()), minor(found.rdev())));
        if !access.read {
            return Ok(false);
        }
        let opened =
            open(Path::new(&format!("/proc/self/fd/{}", node.as_raw_fd())), readonly || !access.write);
        let disk = Disk {
            property: property.to_owned(),
            file: opened.map_err(refuse)?,
            readonly: readonly || !access.write,
        };
        let number = self.add_open(disk)?;
        let node = NodeOfDisk { path, mode: found.mode() & 0o7777, uid: found.uid(), gid: found.gid() };
        self.nodes.push((number, node, access));
        Ok(true)
    }

    /// Makes disks of those block devices in `linux.devices` that rules allow by their numbers. These rules become
    /// rules of the disks.
    ///
    /// # Errors
    /// As [`Disks::add`].
    pub fn take_devices(
        &mut self,
        devices: Vec<Device>,
        warnings: &mut Vec<String>,
    ) -> Result<(Vec<PlannedDevice>, Vec<PlannedRule>), SpecError> {
        let rules = std::mem::take(&mut self.rules);
        let mut found: Vec<((u32, u32), DiskNumber)> = Vec::new();
        let mut nodes = Vec::with_capacity(devices.len());
        for (index, device) in devices.into_iter().enumerate() {
            if device.kind != DeviceKind::Block {
                nodes.push(PlannedDevice::Node(device));
                continue;
            }
            let property = format!("linux.devices[{index}]");
            let numbers = (device.major, device.minor);
            let allowed: Vec<&DeviceRule> =
                rules.iter().filter(|rule| rule.allow && numbers_of(rule) == Some(numbers)).collect();
            let path = (!allowed.is_empty()).then(|| node_of(numbers)).flatten();
            let Some(path) = path else {
                warnings.push(format!(
                    "{property}: {} is a node without a device in the VM: no rule of linux.resources.devices allows block \
                     device {}:{} by its numbers, or the host has none",
                    device.path, numbers.0, numbers.1
                ));
                nodes.push(PlannedDevice::Node(device));
                continue;
            };
            let known = found.iter().find(|(known, _)| *known == numbers).map(|(_, disk)| *disk);
            let disk = match known {
                Some(disk) => disk,
                None => self.add(&path, !allowed.iter().any(|rule| rule.write), &property)?,
            };
            found.push((numbers, disk));
            let Device { path, mode, uid, gid, .. } = device;
            nodes.push(PlannedDevice::Disk(disk, NodeOfDisk { path, mode, uid, gid }));
        }
        // Without any rule all is allowed.
        let has_rules = !rules.is_empty();
        let mut rules: Vec<PlannedRule> = rules
            .into_iter()
            .map(|rule| {
                let numbers = numbers_of(&rule);
                match found.iter().find(|(known, _)| Some(*known) == numbers) {
                    Some((_, disk)) => {
                        let DeviceRule { allow, read, write, mknod, .. } = rule;
                        PlannedRule::Disk(*disk, Access { allow, read, write, mknod })
                    }
                    None => PlannedRule::Numbers(rule),
                }
            })
            .collect();
        for (disk, node, access) in std::mem::take(&mut self.nodes) {
            if has_rules {
                rules.push(PlannedRule::Disk(disk, access));
            }
            nodes.push(PlannedDevice::Disk(disk, node));
        }
        Ok((nodes, rules))
    }
}

/// What the rules allow of a block device.
fn access(rules: &[DeviceRule], (major, minor): (u64, u64)) -> Access {
    let is = |wanted: Option<u32>, number| wanted.is_none_or(|wanted| u64::from(wanted) == number);
    let mut access = Access { allow: true, read: false, write: false, mknod: false };
    for rule in rules {
        let is_of_kind = rule.kind.is_none_or(|kind| kind == DeviceKind::Block);
        if is_of_kind && is(rule.major, major) && is(rule.minor, minor) {
            access.read = if rule.read { rule.allow } else { access.read };
            access.write = if rule.write { rule.allow } else { access.write };
            access.mknod = if rule.mknod { rule.allow } else { access.mknod };
        }
    }
    access
}

/// The block device that a rule names by both of its numbers.
fn numbers_of(rule: &DeviceRule) -> Option<(u32, u32)> {
    rule.major.zip(rule.minor).filter(|_| rule.kind == Some(DeviceKind::Block))
}

/// Whether the host has a block device there.
pub fn is_block_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device())
}

/// Whether the path is a block device or a regular file of the host, which can hold a file system.
pub fn is_image(path: &Path) -> bool {
    path.is_absolute()
        && fs::metadata(path).is_ok_and(|found| found.is_file() || found.file_type().is_block_device())
}

/// The host's node of a block device, found by the kernel's name of it.
fn node_of(numbers: (u32, u32)) -> Option<PathBuf> {
    let uevent = fs::read_to_string(format!("/sys/dev/block/{}:{}/uevent", numbers.0, numbers.1)).ok()?;
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    let path = Path::new("/dev").join(name);
    let found = fs::metadata(&path).ok().filter(|found| found.file_type().is_block_device())?;
    let is_it = (major(found.rdev()), minor(found.rdev())) == (numbers.0.into(), numbers.1.into());
    is_it.then_some(path)
}

/// Opens a disk so that nobody else writes to it and, if the VM writes to it, so that nobody else uses it, for as long
/// as the VMM has the descriptor. Two kernels that write to one file system destroy it.
fn open(path: &Path, readonly: bool) -> Result<File, String> {
    const IN_USE: &str = "the host or another VM uses it; two writers would destroy what is on it, so only read-only \
                          uses can be at the same time";
    // For a block device without O_CREAT: whoever else has mounted or claimed it must not (open(2)).
    let exclusive = if !readonly && is_block_device(path) { libc::O_EXCL } else { 0 };
    let opened =
        OpenOptions::new().read(true).write(!readonly).custom_flags(exclusive | libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|cause| {
        if cause.raw_os_error() == Some(libc::EBUSY) { IN_USE.to_owned() } else { cause.to_string() }
    })?;
    let locked = if readonly { file.try_lock_shared() } else { file.try_lock() };
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(IN_USE.to_owned()),
        // This file system has no locks.
        Err(TryLockError::Error(cause)) if cause.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(cause)) => Err(cause.to_string()),
    }
}

#[cfg(test)]
#[path = "disks_test.rs"]
mod tests;
