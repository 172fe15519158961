//! The size of the guest's RAM while it runs.
//!
//! A memory region of KVM cannot grow, and a region as large as the guest may ever become would cost the host memory
//! from the start. So each time that the guest is to have more RAM than ever before, another region is added after the
//! last.

use std::sync::{Mutex, PoisonError};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::{
    devices::mem::{self, NoDriver, OnReached},
    machine::{self, Machine},
    memory,
};

const MIB: u64 = 1 << 20;

/// Why the guest cannot have this size.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum Error {
    #[error("{asked} MiB are more than the {most} MiB that this VM was made for")]
    TooMuch { asked: u32, most: u64 },
    #[error("its memory cannot be opened: {0}")]
    Open(#[from] std::io::Error),
    #[error(transparent)]
    Kvm(#[from] machine::Error),
    #[error(transparent)]
    NoDriver(#[from] NoDriver),
}

/// RAM that can grow and shrink.
#[derive(Debug)]
pub struct Ram {
    /// All guest memory.
    pub memory: GuestMemoryMmap,
    /// RAM with which the guest has booted, in bytes.
    pub boot: u64,
    /// The RAM that is plugged, if there is any.
    pub growth: Option<Growing>,
}

/// The part that is plugged.
#[derive(Debug)]
pub struct Growing {
    range: memory::Growth,
    device: mem::Growth,
    /// Bytes of the range, from its start, that KVM knows.
    covered: Mutex<u64>,
}

impl Growing {
    /// A range of which nothing is plugged yet; KVM knows the part that the guest plugs first.
    pub fn new(range: memory::Growth) -> Self {
        let covered = range.usable(range.size);
        let device = mem::Growth::new(range.region.clone(), covered, range.size);
        Self { range, device, covered: Mutex::new(covered) }
    }

    /// The memory for the memory device.
    pub fn device(&self) -> mem::Growth {
        self.device.clone()
    }

    /// The part that KVM knows from the start: its address and its bytes.
    pub fn covered(&self) -> (GuestAddress, u64) {
        let covered = *self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        (GuestAddress(self.range.region.start), covered)
    }
}

impl Ram {
    /// RAM that the guest has, in MiB.
    pub fn mib(&self) -> u32 {
        let plugged = self.growth.as_ref().map_or(0, |growth| growth.device.plugged());
        // At most what the configuration, which counts in u32, allows.
        ((self.boot + plugged) / MIB) as u32
    }

    /// Asks the guest to have `mib` MiB, but at least what it booted with, and calls `on_reached` when it has. It may
    /// never be able to give that much back.
    ///
    /// # Errors
    /// [`Error`].
    pub fn resize(&self, machine: &Machine, mib: u32, on_reached: OnReached) -> Result<(), Error> {
        let least = self.boot / MIB;
        let range =
            self.growth.as_ref().map_or(0, |growth| growth.range.region.end - growth.range.region.start);
        let most = least + range / MIB;
        if u64::from(mib) > most {
            return Err(Error::TooMuch { asked: mib, most });
        }
        let Some(growth) = &self.growth else {
            on_reached();
            return Ok(());
        };
        let size = (u64::from(mib) * MIB).saturating_sub(self.boot);
        let mut covered = growth.covered.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = growth.range.usable(size);
        if usable > *covered {
            let start = GuestAddress(growth.range.region.start + *covered);
            memory::open(&self.memory, start, usable - *covered)?;
            machine.add_ram(&self.memory, start, usable - *covered)?;
            *covered = usable;
        }
        Ok(growth.device.resize(*covered, size, on_reached)?)
    }
}
