//! virtio-fs
pub mod shares;
