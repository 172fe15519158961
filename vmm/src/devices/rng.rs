//! The entropy device (virtio 1.3 §5.4): the host's random numbers for the guest.

use std::io::{self, Write};

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::DescriptorChain;
use vm_memory::GuestMemoryMmap;

use crate::{
    seccomp::Thread,
    virtio::worker::{ChainDevice, Failure, Handler, WorkerDevice},
};

/// Largest answer to one request, in bytes; a driver that needs more asks again.
const MAX: usize = 256;

/// An entropy device.
pub type Rng = WorkerDevice<Entropy>;

/// The parts that only the entropy device has.
#[derive(Debug, Default)]
pub struct Entropy;

impl ChainDevice for Entropy {
    const NAME: &'static str = "rng";
    const DEVICE_TYPE: u32 = 4;
    const QUEUE_SIZES: &'static [u16] = &[16];
    const FILTER: Thread = Thread::Devices;

    fn features(&self) -> u64 {
        1 << VIRTIO_RING_F_EVENT_IDX
    }

    fn handler(&self) -> impl Handler {
        Source
    }
}

/// Answers requests.
pub(crate) struct Source;

impl Handler for Source {
    fn handle(
        &mut self,
        _queue: usize,
        memory: &GuestMemoryMmap,
        chain: DescriptorChain<&GuestMemoryMmap>,
    ) -> Result<u32, Failure> {
        let mut writer = chain.writer(memory)?;
        let length = writer.available_bytes().min(MAX);
        if length == 0 {
            return Err(Failure::Malformed("no room for a random byte"));
        }
        let mut bytes = [0; MAX];
        fill(&mut bytes[..length]).map_err(|source| Failure::Host { what: "getrandom", source })?;
        writer
            .write_all(&bytes[..length])
            .map_err(|_| Failure::Malformed("buffers outside of guest memory"))?;
        Ok(length as u32)
    }
}

/// Fills at most 256 bytes, which getrandom(2) does in one call.
fn fill(bytes: &mut [u8]) -> io::Result<()> {
    // SAFETY: the buffer is valid for its length.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[path = "rng_test.rs"]
mod tests;
