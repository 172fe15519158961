//! What can be changed of a machine while it runs.

use std::sync::Arc;

use stockade_protocol::vmm::CpuPosition;

use crate::{devices::mem::OnReached, machine::Machine, ram::Ram, vcpu};

/// The machine, for requests of the runtime.
pub trait Adjustable: Send + Sync {
    /// Asks the guest to have this much RAM, in MiB, and calls `on_reached` when the guest has it.
    ///
    /// # Errors
    /// Why the guest cannot have it.
    fn resize(&self, mib: u32, on_reached: OnReached) -> Result<(), String>;

    /// How much RAM the guest has, in MiB.
    fn mib(&self) -> u32;

    /// Adds vCPUs until there are at least this many.
    ///
    /// # Errors
    /// Why vCPUs cannot be added.
    fn add_vcpus(&self, count: u8) -> Result<(), String>;

    /// What the first vCPU executes, if it stops to say so.
    fn position(&self) -> Option<CpuPosition>;
}

/// The machine with all that runs in it.
pub struct Parts {
    /// The KVM machine.
    pub machine: Arc<Machine>,
    /// Its RAM.
    pub ram: Ram,
    /// Its vCPUs.
    pub cpus: vcpu::Threads,
}

impl Adjustable for Parts {
    fn resize(&self, mib: u32, on_reached: OnReached) -> Result<(), String> {
        self.ram.resize(&self.machine, mib, on_reached).map_err(|error| error.to_string())
    }

    fn mib(&self) -> u32 {
        self.ram.mib()
    }

    fn add_vcpus(&self, count: u8) -> Result<(), String> {
        self.cpus.add(&self.machine, count).map_err(|error| error.to_string())
    }

    fn position(&self) -> Option<CpuPosition> {
        self.cpus.position()
    }
}

/// A machine for tests that fulfils every request, up to 4 CPUs.
#[cfg(any(test, feature = "fuzz"))]
#[derive(Default)]
pub struct Imagined(std::sync::atomic::AtomicU32);

#[cfg(any(test, feature = "fuzz"))]
impl Adjustable for Imagined {
    fn resize(&self, mib: u32, on_reached: OnReached) -> Result<(), String> {
        self.0.store(mib, std::sync::atomic::Ordering::Relaxed);
        on_reached();
        Ok(())
    }

    fn mib(&self) -> u32 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn add_vcpus(&self, count: u8) -> Result<(), String> {
        if count <= 4 { Ok(()) } else { Err("too many CPUs".into()) }
    }

    fn position(&self) -> Option<CpuPosition> {
        None
    }
}
