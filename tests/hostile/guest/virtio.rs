//! virtio-mmio registers and split rings (virtio 1.3 §2.7, §4.2), written as the attacker likes.

use alloc::alloc::{Layout, alloc_zeroed};

use crate::cpu;

/// Where the slots are.
pub const SLOTS: u64 = 3 << 30;
pub const SLOT_SIZE: u64 = 0x1000;
/// More than there are.
pub const MAX_SLOTS: u64 = 32;

pub mod register {
    pub const MAGIC: u64 = 0x000;
    pub const DEVICE_ID: u64 = 0x008;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SELECT: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SELECT: u64 = 0x024;
    pub const QUEUE_SELECT: u64 = 0x030;
    pub const QUEUE_SIZE_MAX: u64 = 0x034;
    pub const QUEUE_SIZE: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESCRIPTORS: u64 = 0x080;
    pub const QUEUE_DRIVER: u64 = 0x090;
    pub const QUEUE_DEVICE: u64 = 0x0a0;
    pub const CONFIG: u64 = 0x100;
}

pub mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
}

pub mod id {
    pub const NET: u32 = 1;
    pub const BLK: u32 = 2;
    pub const RNG: u32 = 4;
    pub const BALLOON: u32 = 5;
    pub const VSOCK: u32 = 19;
    pub const MEM: u32 = 24;
    pub const FS: u32 = 26;
}

pub const VERSION_1: u64 = 1 << 32;
pub const EVENT_IDX: u64 = 1 << 29;
pub const INDIRECT: u64 = 1 << 28;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT_FLAG: u16 = 4;

/// How long a device may take, in milliseconds: the lab is slow.
const TIMEOUT_MS: u64 = 20_000;

/// One slot of the bus.
#[derive(Clone, Copy)]
pub struct Slot(pub u64);

impl Slot {
    /// The first slot with a device of this ID.
    pub fn find(device: u32) -> Option<Self> {
        (0..MAX_SLOTS).map(Self).find(|slot| slot.read(register::DEVICE_ID) == device)
    }

    pub fn address(self) -> u64 {
        SLOTS + self.0 * SLOT_SIZE
    }

    pub fn read(self, offset: u64) -> u32 {
        cpu::read32(self.address() + offset)
    }

    pub fn write(self, offset: u64, value: u32) {
        cpu::write32(self.address() + offset, value);
    }

    pub fn reset(self) {
        self.write(register::STATUS, 0);
    }

    pub fn offered(self) -> u64 {
        self.write(register::DEVICE_FEATURES_SELECT, 1);
        let high = u64::from(self.read(register::DEVICE_FEATURES));
        self.write(register::DEVICE_FEATURES_SELECT, 0);
        high << 32 | u64::from(self.read(register::DEVICE_FEATURES))
    }

    /// From a reset to FEATURES_OK; false where the device does not accept.
    pub fn negotiate(self, features: u64) -> bool {
        self.reset();
        self.write(register::STATUS, status::ACKNOWLEDGE);
        self.write(register::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        self.write(register::DRIVER_FEATURES_SELECT, 0);
        self.write(register::DRIVER_FEATURES, features as u32);
        self.write(register::DRIVER_FEATURES_SELECT, 1);
        self.write(register::DRIVER_FEATURES, (features >> 32) as u32);
        let wanted = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.write(register::STATUS, wanted);
        self.read(register::STATUS) == wanted
    }

    pub fn set_queue(self, index: u32, ring: &Ring) {
        self.set_queue_to(index, ring.size.into(), ring.descriptors, ring.available, ring.used);
    }

    pub fn set_queue_to(self, index: u32, size: u32, descriptors: u64, available: u64, used: u64) {
        self.write(register::QUEUE_SELECT, index);
        self.write(register::QUEUE_SIZE, size);
        for (offset, value) in [
            (register::QUEUE_DESCRIPTORS, descriptors),
            (register::QUEUE_DRIVER, available),
            (register::QUEUE_DEVICE, used),
        ] {
            self.write(offset, value as u32);
            self.write(offset + 4, (value >> 32) as u32);
        }
        self.write(register::QUEUE_READY, 1);
    }

    pub fn go(self) {
        let status = self.read(register::STATUS);
        self.write(register::STATUS, status | status::DRIVER_OK);
    }

    pub fn notify(self, queue: u32) {
        self.write(register::QUEUE_NOTIFY, queue);
    }

    pub fn has_failed(self) -> bool {
        self.read(register::STATUS) & status::NEEDS_RESET != 0
    }

    /// Waits until the device says that it needs a reset.
    pub fn fails(self) -> bool {
        let end = cpu::in_ms(TIMEOUT_MS);
        while !self.has_failed() {
            if cpu::now() > end {
                return false;
            }
            cpu::nap();
        }
        true
    }
}

/// Memory that a device reads or writes: whole pages, zero, never freed.
pub fn pages(bytes: u64) -> u64 {
    let size = bytes.next_multiple_of(4096) as usize;
    let layout = Layout::from_size_align(size, 4096).unwrap_or(Layout::new::<[u64; 512]>());
    // SAFETY: the layout's size is not zero.
    (unsafe { alloc_zeroed(layout) }) as u64
}

/// A split ring.
pub struct Ring {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    offered: u16,
    taken: u16,
}

impl Ring {
    pub fn new(size: u16) -> Self {
        let entries = u64::from(size);
        Self {
            size,
            descriptors: pages(16 * entries),
            available: pages(6 + 2 * entries),
            used: pages(6 + 8 * entries),
            offered: 0,
            taken: 0,
        }
    }

    /// Writes a descriptor of the ring's table.
    pub fn describe(&self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        describe_at(self.descriptors, index, address, length, flags, next);
    }

    /// Makes a chain available.
    pub fn offer(&mut self, head: u16) {
        let at = u64::from(self.offered % self.size);
        cpu::write16(self.available + 4 + 2 * at, head);
        self.set_available(self.offered.wrapping_add(1));
    }

    /// Says how many chains there are, and whether it is true is another matter.
    pub fn set_available(&mut self, index: u16) {
        self.offered = index;
        cpu::write16(self.available + 2, index);
    }

    /// The next chain that the device has used: its head, and how many bytes were written.
    pub fn take(&mut self) -> Option<(u32, u32)> {
        if cpu::read16(self.used + 2) == self.taken {
            return None;
        }
        let at = self.used + 4 + 8 * u64::from(self.taken % self.size);
        self.taken = self.taken.wrapping_add(1);
        Some((cpu::read32(at), cpu::read32(at + 4)))
    }

    /// Waits for that, or for the end of patience or of the device.
    pub fn wait(&mut self, slot: Slot) -> Option<(u32, u32)> {
        let end = cpu::in_ms(TIMEOUT_MS);
        loop {
            if let Some(used) = self.take() {
                return Some(used);
            }
            if cpu::now() > end || slot.has_failed() {
                return self.take();
            }
            cpu::nap_for(200);
        }
    }
}

/// Writes a descriptor of any table.
pub fn describe_at(table: u64, index: u16, address: u64, length: u32, flags: u16, next: u16) {
    let at = table + 16 * u64::from(index);
    cpu::write64(at, address);
    cpu::write32(at + 8, length);
    cpu::write16(at + 12, flags);
    cpu::write16(at + 14, next);
}
