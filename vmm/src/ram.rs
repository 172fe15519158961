//! The size of the guest's RAM while it runs.
//!
//! A region of KVM's cannot be made larger, and one as large as the guest may ever become would cost the host memory from
//! the start. So each time that the guest is to have more than it ever had, another one is put behind the last.

use std::sync::{Mutex, PoisonError};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::{
    devices::mem::{self, NoDriver, OnReached},
    machine::{self, Machine},
    memory,
};

const MIB: u64 = 1 << 20;

/// The guest cannot have this size.
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
    /// All of it.
    pub memory: GuestMemoryMmap,
    /// With what the guest has booted, in bytes.
    pub boot: u64,
    /// The rest, where there is any.
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
    /// Nothing is plugged yet; KVM knows what the guest is to have first.
    pub fn new(range: memory::Growth) -> Self {
        let covered = range.usable(range.size);
        let device = mem::Growth::new(range.region.clone(), covered, range.size);
        Self { range, device, covered: Mutex::new(covered) }
    }

    /// What the memory device is made of.
    pub fn device(&self) -> mem::Growth {
        self.device.clone()
    }

    /// What KVM knows from the start: address and bytes.
    pub fn covered(&self) -> (GuestAddress, u64) {
        let covered = *self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        (GuestAddress(self.range.region.start), covered)
    }
}

impl Ram {
    /// What the guest has, in MiB.
    pub fn mib(&self) -> u32 {
        let plugged = self.growth.as_ref().map_or(0, |growth| growth.device.plugged());
        // At most what the configuration, which counts in u32, allows.
        ((self.boot + plugged) / MIB) as u32
    }

    /// Asks the guest to have `mib` MiB, or what it has booted with where that is more, and calls `on_reached` when it has; it may be unable to give so much back.
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
