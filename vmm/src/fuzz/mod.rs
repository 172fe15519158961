//! What the fuzz targets do with their input (`fuzz/README.md`): each plays a hostile guest, or a hostile caller, against one
//! part of the VMM. Nothing of this is in the VMM that is installed.
//!
//! A target panics where the VMM does what it must not do. Devices work without their threads, so that the same input leads to
//! the same steps.

mod blk;
mod bus;
mod control;
mod driver;
mod forward;
mod fuse;
pub(crate) mod input;
mod mmio;
mod net;
mod queues;
mod recorder;
mod template;
mod vsock;

/// A target's name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets of this crate.
pub const TARGETS: [Target; 11] = [
    ("blk", blk::run),
    ("bus", bus::run),
    ("control", control::run),
    ("fs_forward", forward::run),
    ("fuse", fuse::run),
    ("mmio", mmio::run),
    ("net", net::run),
    ("queues", queues::run),
    ("template", template::run),
    ("vsock_packets", vsock::packets),
    ("vsock_streams", vsock::streams),
];

#[cfg(test)]
#[path = "corpus_test.rs"]
mod tests;
