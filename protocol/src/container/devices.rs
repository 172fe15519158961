//! A container's devices: the nodes in its /dev, and what its cgroup permits.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::{Mount, MountSource};

/// One entry of `linux.devices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path in the container.
    pub path: String,
    /// Kind of node.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Path, major and minor number of the devices that every container has (runtime-spec config-linux, "Default Devices"),
/// unless its /dev is a share of the host; all are character devices that everybody may use.
pub const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Name and target of the links in /dev that every such container has.
pub const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    (PTMX, "pts/ptmx"),
];

/// The one of these links that replaces what an image has at its place: that would be a node of another devpts.
pub const PTMX: &str = "ptmx";

/// Whether the container's whole /dev is a share of the host; it is then left as it is.
pub fn share_covers_dev(mounts: &[Mount]) -> bool {
    mounts.iter().any(|entry| is_shared_dev(&entry.destination, &entry.source))
}

/// Whether a mount is a share of the host as the whole /dev.
pub fn is_shared_dev(destination: &str, source: &MountSource) -> bool {
    let names = Path::new(destination).components().filter(|part| *part != Component::RootDir);
    matches!(source, MountSource::Share(_) | MountSource::Copy(_)) && names.eq(Path::new("dev").components())
}

/// Kind of device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
    /// Block device that is a disk of the VM: its major number is the slot ([`crate::vmm::Response::Slot`]), its minor number 0.
    Disk,
}

/// One entry of `linux.resources.devices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// `None` is every kind.
    pub kind: Option<DeviceKind>,
    /// `None` is every major number.
    pub major: Option<u32>,
    /// `None` is every minor number.
    pub minor: Option<u32>,
    /// Read.
    pub read: bool,
    /// Write.
    pub write: bool,
    /// mknod(2).
    pub mknod: bool,
}

impl DeviceRule {
    /// What every container may do, whatever its own rules say (runtime-spec config-linux, "Default Devices").
    pub fn defaults() -> Vec<Self> {
        let char = Some(DeviceKind::Char);
        let rule = |kind, major, minor, accesses| Self {
            allow: true,
            kind,
            major,
            minor,
            read: accesses,
            write: accesses,
            mknod: true,
        };
        // Any node may be made; opening it is another matter.
        let nodes = [DeviceKind::Char, DeviceKind::Block].map(|kind| rule(Some(kind), None, None, false));
        // null, zero, full, random, urandom; tty, console, ptmx.
        let devices = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
        let devices = devices.map(|(major, minor)| rule(char, Some(major), Some(minor), true));
        let terminals = rule(char, Some(136), None, true);
        nodes.into_iter().chain(devices).chain([terminals]).collect()
    }

    /// Whether this one names all devices and accesses that the other names.
    pub fn covers(&self, other: &Self) -> bool {
        (self.kind.is_none() || self.kind == other.kind)
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
            && (self.read || !other.read)
            && (self.write || !other.write)
            && (self.mknod || !other.mknod)
    }
}
