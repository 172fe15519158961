//! The way in which a device notifies its driver: the interrupt status of virtio-mmio and its line.

use std::{
    fmt::{self, Display},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use super::failures::Failures;

/// Bit 0 of InterruptStatus: a used buffer (virtio 1.3 §4.2.2).
pub const USED_BUFFER: u32 = 1;

/// Bit 1 of InterruptStatus: configuration change, which DEVICE_NEEDS_RESET is too.
const CONFIGURATION: u32 = 2;

/// A line of the interrupt controllers, which a device pulses.
pub enum Line {
    /// KVM's, by system calls. An irqfd would have a worker of the host's kernel make them.
    Kvm {
        /// The machine.
        vm: Arc<VmFd>,
        /// The line's number.
        number: u32,
        /// Held during a pulse: in the middle of another's, it would be lost.
        pulse: Mutex<()>,
    },
    /// None: for whoever reads the event.
    Event(EventFd),
}

impl Line {
    fn pulse(&self) {
        match self {
            Self::Kvm { vm, number, pulse } => {
                let _pulse = pulse.lock().unwrap_or_else(PoisonError::into_inner);
                // This fails only for a number that no controller has.
                let _ = vm.set_irq_line(*number, true);
                let _ = vm.set_irq_line(*number, false);
            }
            // The counter is full only after 2^64-2 unread signals, and then it is readable anyway.
            Self::Event(event) => drop(event.write(1)),
        }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kvm { number, .. } => write!(f, "line {number}"),
            Self::Event(_) => f.write_str("event"),
        }
    }
}

/// Shared by a device's threads and its transport.
#[derive(Debug)]
pub struct Interrupt {
    status: AtomicU32,
    failed: AtomicU32,
    generation: AtomicU32,
    line: Line,
    /// The device's name, and the list to which its failures are added.
    reports: Option<(&'static str, Failures)>,
}

impl Interrupt {
    /// An interrupt on this line.
    pub fn new(line: Line) -> Self {
        Self {
            status: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            line,
            reports: None,
        }
    }

    /// The same interrupt, for the device of this name, whose failures are recorded.
    #[must_use]
    pub fn reporting(self, device: &'static str, failures: Failures) -> Self {
        Self { reports: Some((device, failures)), ..self }
    }

    /// Tells the driver that the device has used buffers.
    pub fn used(&self) {
        self.raise(USED_BUFFER);
    }

    /// Tells the driver that configuration space has changed.
    pub fn configuration_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.raise(CONFIGURATION);
    }

    /// A number that changes whenever configuration space changes (virtio 1.3§2.5.1).
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Marks the device as failed because its driver (or its own resources) broke the rules; it does no more work
    /// until it is reset.
    pub fn fail(&self, cause: &dyn Display) {
        if self.failed.swap(1, Ordering::AcqRel) == 0
            && let Some((device, failures)) = &self.reports
        {
            failures.add(device, cause);
        }
        self.raise(CONFIGURATION);
    }

    /// True after [`Self::fail`].
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire) != 0
    }

    /// InterruptStatus as the driver reads it.
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::Acquire)
    }

    /// InterruptACK: the driver has handled these bits.
    pub fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::AcqRel);
    }

    /// Resets it to the state after creation.
    pub fn reset(&self) {
        self.status.store(0, Ordering::Release);
        self.failed.store(0, Ordering::Release);
    }

    /// The state for a template: the bits that the driver has not acknowledged, and the generation of configuration
    /// space.
    pub fn saved(&self) -> (u32, u32) {
        (self.status(), self.generation())
    }

    /// Restores the state from a template. Bits that the driver has not acknowledged are raised again, because it is
    /// not known whether they had reached the CPU.
    pub fn restore(&self, (status, generation): (u32, u32)) {
        self.generation.store(generation, Ordering::Release);
        let known = status & (USED_BUFFER | CONFIGURATION);
        if known != 0 {
            self.raise(known);
        }
    }

    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::AcqRel);
        self.line.pulse();
    }
}
