//! The interface of a virtio device to the rest of the VMM.
//!
//! Life of a device, as the transport drives it (virtio 1.3 §2.1, §3.1):
//!
//! ```text
//!            driver negotiates, sets up queues        DRIVER_OK
//!  created ───────────────────────────────────▶ ready ─────────▶ active ──▶ failed (DEVICE_NEEDS_RESET)
//!     ▲                                                            │             │
//!     └──────────────────────────── reset ◀────────────────────────┴─────────────┘
//! ```
//!
//! A device knows nothing of registers, interrupts lines or the guest's address map: it gets its queues, already
//! validated and frozen, in [`Activation`], and works on threads of its own.

use std::sync::Arc;

use virtio_bindings::virtio_ids::{
    VIRTIO_ID_BALLOON, VIRTIO_ID_BLOCK, VIRTIO_ID_FS, VIRTIO_ID_MEM, VIRTIO_ID_NET, VIRTIO_ID_RNG,
    VIRTIO_ID_VSOCK,
};
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::interrupt::Interrupt;

/// One kind of virtio device.
pub trait VirtioDevice: Send {
    /// Device ID (virtio 1.3 §5).
    fn device_type(&self) -> u32;

    /// Largest size of each queue; the length is the number of queues.
    fn queue_max_sizes(&self) -> &[u16];

    /// Feature bits offered besides those of the transport (VIRTIO_F_VERSION_1 is the transport's).
    fn features(&self) -> u64;

    /// Reads device configuration space; bytes beyond its end are left as they are (zero).
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes device configuration space; most devices have nothing writable.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// Starts work: the driver has set DRIVER_OK and the queues are valid.
    ///
    /// # Errors
    /// The text of what failed; the transport then sets DEVICE_NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Stops work, joins the device's threads, and returns the queues in their final state; `None` if the device was
    /// not active, or if its queues do not hold all of its state. May be called in any state.
    fn stop(&mut self) -> Option<Vec<Queue>>;

    /// Stops work and forgets the driver. May be called in any state.
    fn reset(&mut self) {
        self.stop();
    }
}

/// The name of a kind of device, for reports of failures.
pub fn name(device_type: u32) -> &'static str {
    match device_type {
        VIRTIO_ID_NET => "net",
        VIRTIO_ID_BLOCK => "blk",
        VIRTIO_ID_RNG => "rng",
        VIRTIO_ID_BALLOON => "balloon",
        VIRTIO_ID_VSOCK => "vsock",
        VIRTIO_ID_MEM => "mem",
        VIRTIO_ID_FS => "fs",
        _ => "unknown",
    }
}

/// Answers a read of configuration space that holds `space`: bytes beyond its end are left as they are.
pub fn read_space(space: &[u8], offset: u64, data: &mut [u8]) {
    let rest = usize::try_from(offset).ok().and_then(|offset| space.get(offset..)).unwrap_or_default();
    for (to, from) in data.iter_mut().zip(rest) {
        *to = *from;
    }
}

/// The parts with which an active device works.
pub struct Activation {
    /// Guest RAM. Every access is bounds-checked.
    pub memory: GuestMemoryMmap,
    /// Features that the driver accepted.
    pub features: u64,
    /// One queue for each entry of [`VirtioDevice::queue_max_sizes`]; those that the driver left unset are not ready.
    pub queues: Vec<Queue>,
    /// Signalled (ioeventfd) when the driver notifies the queue of the same index.
    pub queue_events: Vec<EventFd>,
    /// The way to tell the driver of used buffers, of configuration changes, and that the device has failed.
    pub interrupt: Arc<Interrupt>,
}

/// Why a device could not start.
#[derive(Debug, thiserror::Error)]
#[error("{device}: {reason}")]
pub struct ActivateError {
    /// Name of the device.
    pub device: &'static str,
    /// What failed.
    pub reason: String,
}
