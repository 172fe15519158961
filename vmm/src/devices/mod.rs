//! The devices of a microVM: one file or folder each, and one line in [`all`].

pub mod fs;
pub mod rng;
pub mod vsock;

use std::io;

use crate::virtio::device::VirtioDevice;

/// What the devices are made of.
pub struct Parts {
    /// The file systems that the guest sees.
    pub shares: fs::shares::Shares,
}

/// Every device, in the order of their slots.
///
/// # Errors
/// A device cannot be made.
pub fn all(parts: Parts) -> io::Result<Vec<Box<dyn VirtioDevice>>> {
    Ok(vec![Box::new(rng::Rng::default()), Box::new(fs::Fs::new(parts.shares))])
}
