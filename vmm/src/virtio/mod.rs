//! virtio: the device trait, the interrupt, the virtio-mmio transport and its slots, guest memory that
//! descriptors point to, simple devices and their threads.

pub mod buffers;
pub mod device;
pub mod failures;
pub mod interrupt;
pub mod mmio;
pub mod shared_thread;
pub mod slots;
pub mod worker;

#[cfg(any(test, feature = "fuzz"))]
pub mod device_fixture;
#[cfg(any(test, feature = "fuzz"))]
pub mod queue_fixture;
