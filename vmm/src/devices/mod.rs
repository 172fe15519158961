//! The devices of a microVM: one file or directory for each, and one line in [`all`] for each with which it boots.

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

use crate::{
    seccomp::Thread,
    virtio::{device::VirtioDevice, shared_thread::SharedThread},
};

/// The parts for making the devices.
pub struct Parts {
    /// The channel to the file server.
    pub files: fs::channel::DeviceEnd,
    /// The memory by which the guest grows once it has booted.
    pub growth: Option<mem::Growth>,
    /// The guest's context ID.
    pub cid: u32,
    /// The listener whose connections go to the agent.
    pub agent_listener: UnixListener,
    /// The socket for the guest's only connection.
    pub ready: UnixStream,
    /// Called when the guest has made that connection.
    pub on_ready: Box<dyn FnOnce() + Send>,
    /// Counts the pages that the guest reports.
    pub reports: balloon::Reports,
    /// In a clone of a template: the connection that its agent waits for.
    pub renewal: Option<UnixStream>,
}

/// Every device, in the order of their slots.
///
/// # Errors
/// A device cannot be made.
pub fn all(parts: Parts) -> io::Result<Vec<Box<dyn VirtioDevice>>> {
    let Parts { files, growth, cid, agent_listener, ready, on_ready, reports, renewal } = parts;
    // These have next to nothing to do.
    let shared = SharedThread::new("devices", Thread::Devices);
    let mut devices: Vec<Box<dyn VirtioDevice>> = vec![
        Box::new(rng::Rng::default().on(&shared)),
        Box::new(fs::Fs::new(files)),
        Box::new(vsock::Vsock::new(cid.into(), agent_listener, ready, on_ready, renewal)?),
        Box::new(balloon::Balloon::counting(reports).on(&shared)),
    ];
    devices.extend(growth.map(|growth| Box::new(mem::Mem::new(growth).on(&shared)) as _));
    Ok(devices)
}
