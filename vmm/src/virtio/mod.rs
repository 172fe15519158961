//! virtio: the device trait, the interrupt, the virtio-mmio transport and its slots, the thread of a simple device.

pub mod device;
pub mod interrupt;
pub mod mmio;
pub mod slots;
pub mod worker;

#[cfg(test)]
pub mod device_fixture;
#[cfg(test)]
pub mod queue_fixture;
