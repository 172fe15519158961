//! Devices that are added to a running machine, and taken away again.
//!
//! ```text
//!  empty ── add: wired, then visible ──▶ filled ── the guest binds its driver ──▶ in use
//!    ▲                                     │ ▲                                      │
//!    └── remove: gone, then unwired ───────┘ └──────── the guest unbinds ───────────┘
//! ```
//!
//! All of it happens on the main thread, which also carries out the writes to status registers by which a driver takes a
//! device: nothing can come between the look at the status and the removal. A vCPU that reads or writes a slot meanwhile finds
//! it either empty or filled.

use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

use crate::{
    bus::{Bus, NotRemovable},
    machine::Wiring,
    virtio::{
        device::VirtioDevice,
        failures::Failures,
        mmio::MmioTransport,
        slots::{self, Slot},
    },
};

/// Why a device cannot be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every slot has a device.
    #[error("the VM has no free slot for another device: at most {0} can be added")]
    Full(usize),
    /// The host has no descriptors left.
    #[error("cannot make the device's events: {0}")]
    Event(std::io::Error),
    /// KVM refuses.
    #[error(transparent)]
    Machine(#[from] crate::machine::Error),
    /// The machine booted with this device, or the slot does not exist.
    #[error("slot {0} is not a hotplug slot")]
    NotSpare(u8),
    /// The device is in use, or the slot is empty.
    #[error("cannot empty slot {slot}: {reason}")]
    NotRemovable {
        /// The slot.
        slot: u8,
        /// Why it cannot be removed.
        reason: NotRemovable,
    },
}

/// The slots that were empty when the machine booted.
pub struct HotplugSlots {
    /// The machine around them.
    pub wiring: Arc<dyn Wiring>,
    /// The bus with the slots.
    pub bus: Arc<Bus>,
    /// Guest memory, for the devices.
    pub memory: GuestMemoryMmap,
    /// Keeps why devices fail.
    pub failures: Failures,
    /// The first of these slots; the slots before it have the devices with which the machine booted.
    pub first: usize,
}

impl HotplugSlots {
    /// Puts a device into a free slot and returns the slot's number.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Event`], [`Error::Machine`].
    pub fn add(&self, device: Box<dyn VirtioDevice>) -> Result<u8, Error> {
        let index = self.bus.empty_slot().ok_or(Error::Full(slots::HOTPLUG))?;
        let (number, slot) = self.slot(index).ok_or(Error::Full(slots::HOTPLUG))?;
        let line = self.wiring.line(slot);
        let transport =
            MmioTransport::new(device, self.memory.clone(), line, Box::new(|| ()), &self.failures)
                .map_err(Error::Event)?;
        self.wiring.connect(slot, &transport)?;
        self.bus.fill(index, transport);
        Ok(number)
    }

    /// Removes a device and drops it, with its descriptors.
    ///
    /// # Errors
    /// [`Error::NotSpare`], [`Error::NotRemovable`].
    pub fn remove(&self, slot: u8) -> Result<(), Error> {
        let index = usize::from(slot);
        let (_, place) = self.slot(index).filter(|_| index >= self.first).ok_or(Error::NotSpare(slot))?;
        let transport = self.bus.empty(index).map_err(|reason| Error::NotRemovable { slot, reason })?;
        self.wiring.disconnect(place, &transport);
        Ok(())
    }

    fn slot(&self, index: usize) -> Option<(u8, Slot)> {
        Some((u8::try_from(index).ok()?, slots::all().take(self.first + slots::HOTPLUG).nth(index)?))
    }
}
