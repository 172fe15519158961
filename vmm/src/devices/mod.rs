//! The devices of a microVM: one file or directory each, and one line in [`all`] for those with which it boots.

pub mod balloon;
pub mod blk;
pub mod fs;
pub mod mem;
pub mod net;
pub mod rng;
pub mod vsock;

use std::{
    io,
    os::unix::net::{UnixListener, UnixStream},
};

use crate::virtio::device::VirtioDevice;

/// What the devices are made of.
pub struct Parts {
    /// The way to the file server.
    pub files: fs::channel::DeviceEnd,
    /// What the guest's memory grows by once it has booted.
    pub growth: Option<mem::Growth>,
    /// The guest's context ID.
    pub cid: u32,
    /// Its connections go to the agent.
    pub agent_listener: UnixListener,
    /// Gets the guest's one connection.
    pub ready: UnixStream,
    /// Called when the guest has made it.
    pub on_ready: Box<dyn FnOnce() + Send>,
    /// Counts the pages that the guest reports.
    pub reports: balloon::Reports,
    /// In a clone of a template: what its agent waits for.
    pub renewal: Option<UnixStream>,
}

/// Every device, in the order of their slots.
///
/// # Errors
/// A device cannot be made.
pub fn all(parts: Parts) -> io::Result<Vec<Box<dyn VirtioDevice>>> {
    let Parts { files, growth, cid, agent_listener, ready, on_ready, reports, renewal } = parts;
    let mut devices: Vec<Box<dyn VirtioDevice>> = vec![
        Box::new(rng::Rng::default()),
        Box::new(fs::Fs::new(files)),
        Box::new(vsock::Vsock::new(cid.into(), agent_listener, ready, on_ready, renewal)?),
        Box::new(balloon::Balloon::counting(reports)),
    ];
    devices.extend(growth.map(|growth| Box::new(mem::Mem::new(growth)) as _));
    Ok(devices)
}
