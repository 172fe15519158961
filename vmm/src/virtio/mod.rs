//! virtio: the device trait, the interrupt, the virtio-mmio transport and its slots.

pub mod device;
pub mod interrupt;
pub mod mmio;
pub mod slots;
pub mod worker;

#[cfg(test)]
pub mod queue_fixture;
