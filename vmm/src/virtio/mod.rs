//! virtio: the device trait, the interrupt and (in time) the virtio-mmio transport.

pub mod device;
pub mod interrupt;
