//! What a vCPU's I/O and MMIO exits reach.
//!
//! An access to an address without a device is ignored and not reported: kernels probe for hardware, and a guest in a
//! loop must not fill a log.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use vmm_sys_util::eventfd::EventFd;

use crate::{
    activation::Activations,
    console::{self, SerialLine},
    virtio::{
        mmio::{self, MmioTransport, register},
        slots,
    },
};

/// Command and status port of the i8042 keyboard controller.
const I8042: u16 = 0x64;

/// i8042 command: pulse the reset line.
const I8042_RESET: u8 = 0xfe;

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest goes on.
    Continue,
    /// The guest has reset its machine.
    Reset,
}

/// The devices, shared by all vCPUs.
pub struct Bus {
    serial: Mutex<SerialLine>,
    slots: Vec<Mutex<Option<MmioTransport>>>,
    activation: Activations,
}

impl Bus {
    /// A bus with the serial line, the devices of [`slots::all`], in order, and `hotplug` empty slots after them.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(serial: SerialLine, transports: Vec<MmioTransport>, hotplug: usize) -> io::Result<Self> {
        let empty = std::iter::repeat_with(|| None).take(hotplug);
        Ok(Self {
            serial: Mutex::new(serial),
            slots: transports.into_iter().map(Some).chain(empty).map(Mutex::new).collect(),
            activation: Activations::new()?,
        })
    }

    /// The first slot that is empty; only the main thread fills and empties slots.
    pub fn empty_slot(&self) -> Option<usize> {
        self.slots.iter().position(|slot| lock(slot).is_none())
    }

    /// Puts a device into an empty slot.
    pub fn fill(&self, slot: usize, transport: MmioTransport) {
        if let Some(slot) = self.slots.get(slot) {
            *lock(slot) = Some(transport);
        }
    }

    /// Removes a device, unless a driver uses it. The main thread calls this, and it also makes all changes of whether
    /// a driver uses a device.
    ///
    /// # Errors
    /// The slot is empty, or a driver still uses the device.
    pub fn empty(&self, slot: usize) -> Result<MmioTransport, NotRemovable> {
        let mut slot = lock(self.slots.get(slot).ok_or(NotRemovable::Empty)?);
        match slot.as_ref() {
            None => Err(NotRemovable::Empty),
            Some(transport) if transport.has_driver() => Err(NotRemovable::Bound),
            Some(_) => slot.take().ok_or(NotRemovable::Empty),
        }
    }

    /// Stops the serial line and all devices for good, and returns their states. The vCPUs have been stopped.
    ///
    /// # Errors
    /// The number of a slot whose device cannot be saved.
    pub fn save(&self) -> Result<(console::State, Vec<mmio::State>), usize> {
        let transports = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let state = lock(slot).as_mut()?.save();
            Some(state.ok_or(index))
        });
        let transports = transports.collect::<Result<_, _>>()?;
        Ok((console::State::of(&lock(&self.serial)), transports))
    }

    /// Readable while [`Self::start_and_stop_devices`] has something to do.
    pub fn activation_event(&self) -> &EventFd {
        self.activation.event()
    }

    /// Carries out the writes that the vCPUs have handed over to the main thread by now.
    pub fn start_and_stop_devices(&self) {
        for write in self.activation.take() {
            // A device that was removed meanwhile has no status.
            if let Some(transport) =
                self.slots.get(write.slot).map(lock).as_deref_mut().and_then(Option::as_mut)
            {
                transport.write(register::STATUS, &write.value);
            }
        }
    }

    /// The instructions `out` and `outs`.
    pub fn write_port(&self, port: u16, data: &[u8]) -> Outcome {
        match port {
            console::PORT..=console::LAST_PORT => {
                let mut serial = lock(&self.serial);
                for byte in data {
                    // This fails only if the interrupt cannot be injected; the guest's driver then polls.
                    let _ = serial.write((port - console::PORT) as u8, *byte);
                }
                Outcome::Continue
            }
            I8042 if data.contains(&I8042_RESET) => Outcome::Reset,
            _ => Outcome::Continue,
        }
    }

    /// The instructions `in` and `ins`.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        match port {
            console::PORT..=console::LAST_PORT => {
                let mut serial = lock(&self.serial);
                data.fill_with(|| serial.read((port - console::PORT) as u8));
            }
            // The controller is always ready for a command, and has no data.
            I8042 => data.fill(0),
            _ => data.fill(0xff),
        }
    }

    /// A write to the MMIO hole.
    pub fn write_mmio(&self, address: u64, data: &[u8]) {
        let Some((index, offset)) = slots::at(address) else { return };
        let Some(mut slot) = self.slots.get(index).map(lock) else { return };
        let Some(transport) = slot.as_mut() else { return };
        match data.try_into() {
            Ok(value) if offset == register::STATUS => {
                // The main thread takes the lock to carry it out.
                drop(slot);
                self.activation.submit(index, value);
            }
            _ => transport.write(offset, data),
        }
    }

    /// A read from the MMIO hole.
    pub fn read_mmio(&self, address: u64, data: &mut [u8]) {
        let found = slots::at(address).and_then(|(slot, offset)| Some((lock(self.slots.get(slot)?), offset)));
        match found {
            Some((slot, offset)) => match slot.as_ref() {
                Some(transport) => transport.read(offset, data),
                None => mmio::read_empty(offset, data),
            },
            None => data.fill(0xff),
        }
    }
}

/// Why a device cannot be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRemovable {
    /// The slot has no device.
    #[error("the slot has no device")]
    Empty,
    /// A driver uses the device.
    #[error("the guest's driver still uses its device: unbind the driver first")]
    Bound,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "bus_test.rs"]
mod tests;
