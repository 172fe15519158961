//! The addresses of virtio-mmio devices in the guest's address map, and their interrupt lines.

use vm_memory::GuestAddress;

use crate::memory::MMIO_START;

/// Size of one slot in bytes: registers, then configuration space.
pub const SIZE: u64 = 0x1000;

/// The I/O APIC lines that no legacy device has.
const LINES: [u8; 17] = [5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];

/// Slots that are empty when the guest boots, for devices that are added to it while it runs. Each costs 0.15 million
/// instructions of its boot, for registering a platform device, finding it empty, and its interrupt line.
pub const HOTPLUG: usize = 8;

/// A place for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its registers.
    pub address: GuestAddress,
    /// Its interrupt line.
    pub irq: u8,
}

/// All slots, in the order in which devices fill them.
pub fn all() -> impl Iterator<Item = Slot> {
    LINES
        .iter()
        .zip(0u64..)
        .map(|(irq, index)| Slot { address: GuestAddress(MMIO_START.0 + index * SIZE), irq: *irq })
}

/// The slot that a guest physical address falls into, and the offset in it.
pub fn at(address: u64) -> Option<(usize, u64)> {
    let offset = address.checked_sub(MMIO_START.0)?;
    Some(((offset / SIZE) as usize, offset % SIZE))
}
