//! The operations on a queue that both directions need: taking chains, giving them back, interrupting.

use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileSlice};

use super::HEADER_SIZE;
use crate::virtio::buffers::{self, Access, ChainError};

/// The driver has broken the rules of a queue; the device stops.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The rings are not valid.
    #[error("broken rings: {0}")]
    Rings(#[from] virtio_queue::Error),
    /// The rings are outside of guest memory.
    #[error("broken rings: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// A descriptor chain is not valid.
    #[error("{0}")]
    Chain(#[from] ChainError),
}

/// A chain that was taken and not given back yet.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// Index of its first descriptor.
    pub head: u16,
    /// Its length, in bytes.
    pub length: usize,
    /// Number of slices that it has added.
    pub slices: usize,
}

/// One queue.
pub struct Ring<'m> {
    memory: &'m GuestMemoryMmap,
    queue: Queue,
    /// Index of the used ring when the driver was last asked whether it wants an interrupt.
    asked: u16,
    /// The slices of the current chain; the list is reused to avoid allocations.
    chain: Vec<VolatileSlice<'m>>,
}

impl<'m> Ring<'m> {
    /// Takes `queue`, which must be valid.
    pub fn new(memory: &'m GuestMemoryMmap, queue: Queue) -> Self {
        Self { memory, asked: queue.next_used(), queue, chain: Vec::new() }
    }

    /// Number of entries.
    pub fn size(&self) -> usize {
        self.queue.size().into()
    }

    /// Takes the next chain and appends its buffers to `slices`. `None` when there is no more; the driver then notifies of the
    /// next.
    ///
    /// # Errors
    /// Broken rings, or a chain that cannot hold a header.
    pub fn take(
        &mut self,
        access: Access,
        slices: &mut impl Extend<VolatileSlice<'m>>,
    ) -> Result<Option<Chain>, RingError> {
        let Some(chain) = self.next()? else { return Ok(None) };
        let head = chain.head_index();
        self.chain.clear();
        let length = buffers::collect(self.memory, chain, access, &mut self.chain)?;
        if length < HEADER_SIZE {
            return Err(ChainError::TooShort { found: length, needed: HEADER_SIZE }.into());
        }
        let count = self.chain.len();
        slices.extend(self.chain.drain(..));
        Ok(Some(Chain { head, length, slices: count }))
    }

    /// The next chain, unchecked.
    ///
    /// # Errors
    /// Broken rings.
    pub fn next(&mut self) -> Result<Option<DescriptorChain<&'m GuestMemoryMmap>>, RingError> {
        loop {
            self.queue.disable_notification(self.memory)?;
            match self.queue.iter(self.memory)?.next() {
                Some(chain) => return Ok(Some(chain)),
                None if self.queue.enable_notification(self.memory)? => {}
                None => return Ok(None),
            }
        }
    }

    /// Gives chains back, each with its head and the number of bytes that were written to it. The driver sees all of
    /// them or none: it must not find a part of a packet in several buffers.
    ///
    /// # Errors
    /// Broken rings.
    pub fn give_back(&mut self, chains: impl IntoIterator<Item = (u16, usize)>) -> Result<(), RingError> {
        let (ring, size) = (self.queue.used_ring(), self.queue.size());
        let mut index = self.queue.next_used();
        for (head, length) in chains {
            // A header of two fields of 16 bits; an element is the head and the length, 32 bits each (§2.7.8).
            let element = GuestAddress(ring + 4 + u64::from(index % size) * 8);
            self.memory.write_obj([u32::from(head), u32::try_from(length).unwrap_or(u32::MAX)], element)?;
            index = index.wrapping_add(1);
        }
        self.queue.set_next_used(index);
        Ok(self.memory.store(index, GuestAddress(ring + 2), Ordering::Release)?)
    }

    /// True when the driver wants an interrupt for what was given back since the last call (§2.7.7).
    ///
    /// # Errors
    /// Broken rings.
    pub fn needs_interrupt(&mut self) -> Result<bool, RingError> {
        let used = self.queue.next_used();
        let asked = std::mem::replace(&mut self.asked, used);
        if used == asked {
            return Ok(false);
        }
        // The driver writes its wish and then reads the used ring; the device does it in the other order.
        fence(Ordering::SeqCst);
        let ring = self.queue.avail_ring();
        if !self.queue.event_idx_enabled() {
            let flags: u16 = self.memory.load(GuestAddress(ring), Ordering::Relaxed)?;
            return Ok(u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0);
        }
        let event = GuestAddress(ring + 4 + u64::from(self.queue.size()) * 2);
        let event: u16 = self.memory.load(event, Ordering::Relaxed)?;
        Ok(used.wrapping_sub(event).wrapping_sub(1) < used.wrapping_sub(asked))
    }
}
