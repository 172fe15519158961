//! The file system device (virtio 1.3 §5.11): FUSE requests, answered in process.
//!
//! Cache, locks and rights, as the guest sees them:
//!
//! - Names and attributes are believed for one second, file contents until the next open: others (`podman cp`, another
//!   container) may change files behind the guest's back, and virtio-fs cannot tell it.
//! - Locks (flock, fcntl) work between processes of one guest, not against the host: the guest's kernel keeps them.
//! - The guest's kernel checks permissions, this side does what it is told with the rights of the file server, and new
//!   files belong to the caller's uid and gid. ACLs are stored, but only their mode bits are enforced.
//! - Device nodes, FIFOs and sockets can be made and seen, never opened here: the guest's kernel does that.
//! - There is no O_TMPFILE (programs fall back to a name that they unlink), and no trusted.* attribute, which would take
//!   CAP_SYS_ADMIN.

mod allowed_flags;
pub mod shares;

use std::sync::Arc;

use fuse_backend_rs::{
    api::{Vfs, server::Server},
    transport::{Reader, VirtioFsWriter, Writer},
};
use stockade_protocol::agent::SHARE_TAG;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::DescriptorChain;
use vm_memory::GuestMemoryMmap;

use crate::{
    seccomp::Thread,
    virtio::{
        device::{ActivateError, Activation, VirtioDevice, read_space},
        worker::{Handler, Nonsense, Worker},
    },
};
use shares::Shares;

const NAME: &str = "fs";
const DEVICE_TYPE: u32 = 26;

/// The high-priority queue (forget requests), and one for all other requests. Linux bounds a request's pages by the
/// size of the queue.
const QUEUE_SIZES: [u16; 2] = [32, 256];

/// Request queues, as configuration space tells.
const REQUEST_QUEUES: u32 = QUEUE_SIZES.len() as u32 - 1;

/// Bytes of the tag in configuration space.
const TAG_SIZE: usize = 36;

const STACK: usize = 256 << 10;

/// Most bytes of a request or a reply: 1 MiB of data with headers and names. What the server allocates follows from it.
const MOST_BYTES: usize = (1 << 20) + (64 << 10);

/// A file system device.
#[derive(Debug)]
pub struct Fs {
    shares: Shares,
    worker: Option<Worker>,
}

impl Fs {
    /// A device that serves `shares`.
    pub fn new(shares: Shares) -> Self {
        Self { shares, worker: None }
    }
}

impl VirtioDevice for Fs {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; TAG_SIZE + 4];
        config[..SHARE_TAG.len()].copy_from_slice(SHARE_TAG.as_bytes());
        config[TAG_SIZE..].copy_from_slice(&REQUEST_QUEUES.to_le_bytes());
        read_space(&config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let requests = Requests { server: Server::new(self.shares.vfs()) };
        self.worker = Some(Worker::spawn(NAME, Thread::Fs, STACK, activation, requests)?);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.stop();
            self.shares.forget_guest();
        }
    }
}

struct Requests {
    server: Server<Arc<Vfs>>,
}

impl Handler for Requests {
    fn handle(
        &mut self,
        _queue: usize,
        memory: &GuestMemoryMmap,
        chain: DescriptorChain<&GuestMemoryMmap>,
    ) -> Result<u32, Nonsense> {
        let reader = Reader::from_descriptor_chain(memory, chain.clone()).map_err(|_| Nonsense)?;
        let writer = VirtioFsWriter::new(memory, chain).map_err(|_| Nonsense)?;
        if reader.available_bytes() > MOST_BYTES || writer.available_bytes() > MOST_BYTES {
            return Err(Nonsense);
        }
        let written = self.server.handle_message(reader, Writer::VirtioFs(writer), None, None);
        // Requests that cannot be understood fail the device; the server answers all others, errors too.
        Ok(written.map_err(|_| Nonsense)? as u32)
    }
}

#[cfg(test)]
#[path = "fs_test.rs"]
mod tests;
