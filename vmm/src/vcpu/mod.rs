//! Virtual CPUs.

pub mod cpuid;
mod position;
pub mod registers;
mod state;
mod threads;
mod tsc;

pub use position::Position;
pub use state::State;
pub use threads::{Error as ThreadsError, Threads};

use std::os::fd::AsRawFd;

use kvm_bindings::{CpuId, kvm_pre_fault_memory};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use vmm_sys_util::errno;

use crate::{
    boot::Entry,
    bus::{Bus, Outcome},
};

/// Why a vCPU cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("vCPU {id}: {what}: {source}")]
pub struct Error {
    id: u8,
    what: &'static str,
    source: errno::Error,
}

/// `_IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)` of linux/kvm.h.
const KVM_PRE_FAULT_MEMORY: u32 = 0xc040_aed5;

/// How a vCPU ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest reset its machine.
    Reset,
    /// The vCPU cannot go on, for this reason.
    Failed(String),
    /// The guest's agent is ready, and the guest is to be saved as a template.
    ReadyToSave,
}

/// One virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    id: u8,
}

impl Vcpu {
    /// CPU `id` of a machine that may have up to `listed`.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn new(vm: &VmFd, supported: &CpuId, id: u8, listed: u8) -> Result<Self, Error> {
        let error = |what| move |source| Error { id, what, source };
        let fd = vm.create_vcpu(id.into()).map_err(error("KVM_CREATE_VCPU"))?;
        fd.set_cpuid2(&cpuid::of_cpu(supported, id, listed)).map_err(error("KVM_SET_CPUID2"))?;
        registers::set_up(&fd).map_err(error("its registers"))?;
        Ok(Self { fd, id })
    }

    /// Makes it the boot CPU.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn enter_at(&self, entry: Entry) -> Result<(), Error> {
        registers::enter(&self.fd, entry).map_err(|source| Error {
            id: self.id,
            what: "its registers",
            source,
        })
    }

    /// What the guest's TSC reads minus what the host's reads (wrapping); 0 if KVM cannot tell.
    pub fn tsc_offset(&self) -> u64 {
        tsc::offset(&self.fd).unwrap_or(0)
    }

    /// Its state; it must not run.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn save(&self, msrs: &[u32]) -> Result<State, Error> {
        State::of(&self.fd, msrs).map_err(|(what, source)| Error { id: self.id, what, source })
    }

    /// Gives it the state from a template.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn restore(&self, state: &State) -> Result<(), Error> {
        state.restore(&self.fd).map_err(|(what, source)| Error { id: self.id, what, source })
    }

    /// Has the guest find these ranges of its RAM, in bytes, mapped: without that, its first access to each page is an exit. Hosts
    /// before Linux 6.11 cannot.
    pub fn map(&self, mut ranges: impl Iterator<Item = (u64, u64)>) {
        let _ = ranges.try_for_each(|(gpa, size)| {
            let mut range = kvm_pre_fault_memory { gpa, size, ..kvm_pre_fault_memory::default() };
            // SAFETY: the descriptor is a vCPU's, and the structure is the one of this request.
            match unsafe { libc::ioctl(self.fd.as_raw_fd(), KVM_PRE_FAULT_MEMORY as _, &raw mut range) } {
                0 => Ok(()),
                _ => Err(()),
            }
        });
    }

    /// Tells its guest that time has passed in which it did not run, so that no watchdog of the kernel complains.
    pub fn was_paused(&self) {
        // A guest without the paravirtual clock cannot be told, but it has no such watchdog either.
        let _ = self.fd.kvmclock_ctrl();
    }

    /// Runs until the machine ends, or until it is asked to pause (`None`).
    pub fn run(&mut self, bus: &Bus, position: &Position) -> Option<End> {
        loop {
            let failure = match self.fd.run() {
                Ok(VcpuExit::MmioWrite(address, data)) => {
                    bus.write_mmio(address, data);
                    continue;
                }
                Ok(VcpuExit::MmioRead(address, data)) => {
                    bus.read_mmio(address, data);
                    continue;
                }
                Ok(VcpuExit::IoOut(port, data)) => match bus.write_port(port, data) {
                    Outcome::Continue => continue,
                    Outcome::Reset => return Some(End::Reset),
                },
                Ok(VcpuExit::IoIn(port, data)) => {
                    bus.read_port(port, data);
                    continue;
                }
                Ok(VcpuExit::Intr) => continue,
                Ok(VcpuExit::Shutdown) => "the guest crashed (triple fault)".into(),
                Ok(VcpuExit::FailEntry(reason, _)) => {
                    format!(
                        "the host's CPU refused to run the guest (hardware reason {reason:#x}): see `stockade check`"
                    )
                }
                Ok(VcpuExit::InternalError) => self.internal_error(),
                Ok(exit) => format!("KVM stopped the guest unexpectedly: {exit:?}"),
                Err(e) if e.errno() == libc::EINTR => {
                    position.tell(&self.fd);
                    // KVM has finished the guest's last exit.
                    if position.is_pausing() {
                        return None;
                    }
                    continue;
                }
                Err(e) if e.errno() == libc::EAGAIN => continue,
                Err(e) if e.errno() == libc::EFAULT => "the host has no memory for the guest".into(),
                Err(e) => format!("KVM_RUN: {e}"),
            };
            return Some(End::Failed(format!("vCPU {}: {failure}", self.id)));
        }
    }

    fn internal_error(&mut self) -> String {
        // SAFETY: the exit reason says that this is the union's field.
        let suberror = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
        let at = self.fd.get_regs().map(|registers| registers.rip).unwrap_or_default();
        format!("KVM cannot emulate the guest (internal error {suberror}) at {at:#x}: see `stockade check`")
    }
}
