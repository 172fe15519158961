//! Inode numbers as the guest sees them.
//!
//! To the guest, all trees are one file system, but on the host they may be of several, where the same number means different
//! files. Programs that copy trees would take them for links to one file. So the numbers of each file system of the
//! host are changed in a different way; those of the first one stay as they are.

use std::sync::RwLock;

use super::sync::{read, write};

/// A host's file system: the number of its device.
pub type Device = (u32, u32);

/// Largest number of file systems that are distinguished.
const MAX_DEVICES: usize = 1 << 12;

/// The file systems that trees have been on.
#[derive(Debug, Default)]
pub struct Devices(RwLock<Vec<Device>>);

impl Devices {
    /// The change for the numbers of this file system.
    pub fn shift_of(&self, device: Device) -> Shift {
        let place = |devices: &[Device]| devices.iter().position(|known| *known == device);
        if let Some(place) = place(&read(&self.0)) {
            return Shift::new(place);
        }
        let mut devices = write(&self.0);
        if let Some(place) = place(&devices) {
            return Shift::new(place);
        }
        if devices.len() < MAX_DEVICES {
            devices.push(device);
        }
        Shift::new(devices.len() - 1)
    }
}

/// The change for the numbers of one file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift(u32);

impl Shift {
    fn new(place: usize) -> Self {
        // File systems number from 1 upwards: the ranges of two are apart when the high bits of both shifts differ, and
        // an odd factor gives each place other bits. Numbers below 2^32 stay there for programs that know no others.
        Self((place as u32).wrapping_mul(0x9e37_79b1))
    }

    /// The guest's number for the host's.
    pub fn apply(self, inode: u64) -> u64 {
        // Nothing has the number 0.
        match inode ^ u64::from(self.0) {
            0 => inode,
            shifted => shifted,
        }
    }
}

#[cfg(test)]
#[path = "inodes_test.rs"]
mod tests;
