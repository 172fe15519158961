//! What a vCPU's I/O and MMIO exits reach.
//!
//! Anything at an address that nobody has is passed over without a word: probing for hardware is what kernels do, and
//! a guest in a loop must not fill a log.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use vmm_sys_util::eventfd::EventFd;

use crate::{
    console::{self, SerialLine},
    handover::Handover,
    virtio::{
        mmio::{MmioTransport, register},
        slots,
    },
};

/// Command and status port of the i8042 keyboard controller.
const I8042: u16 = 0x64;

/// i8042 command: pulse the reset line.
const I8042_RESET: u8 = 0xfe;

/// What a write leads to.
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
    transports: Vec<Mutex<MmioTransport>>,
    handover: Handover,
}

impl Bus {
    /// A bus with the serial line and the devices of [`slots::all`], in order.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(serial: SerialLine, transports: Vec<MmioTransport>) -> io::Result<Self> {
        Ok(Self {
            serial: Mutex::new(serial),
            transports: transports.into_iter().map(Mutex::new).collect(),
            handover: Handover::new()?,
        })
    }

    /// Readable while [`Self::start_and_stop_devices`] has something to do.
    pub fn handover_event(&self) -> &EventFd {
        self.handover.event()
    }

    /// Carries out what the vCPUs have handed over to the main thread.
    pub fn start_and_stop_devices(&self) {
        while let Some(write) = self.handover.take() {
            if let Some(transport) = self.transports.get(write.slot) {
                lock(transport).write(register::STATUS, &write.value);
            }
        }
    }

    /// `out` and `outs`.
    pub fn write_port(&self, port: u16, data: &[u8]) -> Outcome {
        match port {
            console::PORT..=console::LAST_PORT => {
                let mut serial = lock(&self.serial);
                for byte in data {
                    // It fails only where the interrupt cannot be injected, and then the guest's driver polls.
                    let _ = serial.write((port - console::PORT) as u8, *byte);
                }
                Outcome::Continue
            }
            I8042 if data.contains(&I8042_RESET) => Outcome::Reset,
            _ => Outcome::Continue,
        }
    }

    /// `in` and `ins`.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        match port {
            console::PORT..=console::LAST_PORT => {
                let mut serial = lock(&self.serial);
                data.fill_with(|| serial.read((port - console::PORT) as u8));
            }
            // The controller is always ready for a command, and has nothing to say.
            I8042 => data.fill(0),
            _ => data.fill(0xff),
        }
    }

    /// A write to the MMIO hole.
    pub fn write_mmio(&self, address: u64, data: &[u8]) {
        let Some((slot, offset)) = slots::at(address) else { return };
        match (self.transports.get(slot), data.try_into()) {
            (Some(_), Ok(value)) if offset == register::STATUS => self.handover.submit(slot, value),
            (Some(transport), _) => lock(transport).write(offset, data),
            (None, _) => {}
        }
    }

    /// A read from the MMIO hole.
    pub fn read_mmio(&self, address: u64, data: &mut [u8]) {
        match slots::at(address).and_then(|(slot, offset)| Some((self.transports.get(slot)?, offset))) {
            Some((transport, offset)) => lock(transport).read(offset, data),
            None => data.fill(0xff),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "bus_test.rs"]
mod tests;
