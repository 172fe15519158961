//! The rx and the tx queue: packets put into and taken from descriptor chains.

use std::sync::atomic::Ordering;

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestMemoryMmap, VolatileSlice};

use super::packet::{HEADER_SIZE, Header};
use crate::virtio::buffers::{self, Access, ChainError};

/// The driver has broken the rules of a queue; the device stops.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The rings are not valid.
    #[error("broken rings: {0}")]
    Rings(#[from] virtio_queue::Error),
    /// A descriptor chain is not valid.
    #[error("{0}")]
    Chain(#[from] ChainError),
}

/// The common part of the tx queue and the rx queue.
struct Ring {
    queue: Queue,
    /// Whether buffers were used since the driver was last notified.
    used: bool,
}

impl Ring {
    fn pop<'m>(
        &mut self,
        memory: &'m GuestMemoryMmap,
    ) -> Result<Option<DescriptorChain<&'m GuestMemoryMmap>>, QueueError> {
        Ok(self.queue.iter(memory)?.next())
    }

    fn complete(&mut self, memory: &GuestMemoryMmap, head: u16, written: u32) -> Result<(), QueueError> {
        self.queue.add_used(memory, head, written)?;
        self.used = true;
        Ok(())
    }

    fn needs_interrupt(&mut self, memory: &GuestMemoryMmap) -> Result<bool, QueueError> {
        Ok(std::mem::take(&mut self.used) && self.queue.needs_notification(memory)?)
    }
}

/// The tx queue: from the guest.
///
/// Chains go back as soon as they are done with, not with the next interrupt that is due anyway, tempting as that is:
/// Linux counts a packet against its socket until then, and credit does not wake a writer whose socket has half of its
/// send buffer counted (`sock_writeable`).
pub struct TxQueue(Ring);

impl TxQueue {
    /// A queue that takes packets from `queue`.
    pub fn new(queue: Queue) -> Self {
        Self(Ring { queue, used: false })
    }

    /// The queue in its present state.
    pub fn into_queue(self) -> Queue {
        self.0.queue
    }

    /// The next packet: its chain's head for [`Self::complete`], its header, and exactly its data in `data`. `None` when
    /// there is no more; the driver then notifies of the next.
    ///
    /// # Errors
    /// Broken rings, or a chain that is not a packet.
    pub fn next<'m>(
        &mut self,
        memory: &'m GuestMemoryMmap,
        data: &mut Vec<VolatileSlice<'m>>,
    ) -> Result<Option<(u16, Header)>, QueueError> {
        let chain = loop {
            self.0.queue.disable_notification(memory)?;
            match self.0.pop(memory)? {
                Some(chain) => break chain,
                None if self.0.queue.enable_notification(memory)? => {}
                None => return Ok(None),
            }
        };
        let head = chain.head_index();
        data.clear();
        let found = buffers::collect(memory, chain, Access::Readable, data)?;
        let mut bytes = [0; HEADER_SIZE];
        if buffers::copy_out(data, &mut bytes) < HEADER_SIZE {
            return Err(ChainError::TooShort { found, needed: HEADER_SIZE }.into());
        }
        let header = Header::decode(&bytes);
        let needed = HEADER_SIZE + header.len as usize;
        if found < needed {
            return Err(ChainError::TooShort { found, needed }.into());
        }
        let skipped = data.len() - buffers::skip(data, HEADER_SIZE).len();
        data.drain(..skipped);
        buffers::truncate(data, header.len as usize);
        Ok(Some((head, header)))
    }

    /// Gives a packet's chain back.
    ///
    /// # Errors
    /// Broken rings.
    pub fn complete(&mut self, memory: &GuestMemoryMmap, head: u16) -> Result<(), QueueError> {
        self.0.complete(memory, head, 0)
    }

    /// True when the driver wants an interrupt for what was completed since the last call.
    ///
    /// # Errors
    /// Broken rings.
    pub fn needs_interrupt(&mut self, memory: &GuestMemoryMmap) -> Result<bool, QueueError> {
        self.0.needs_interrupt(memory)
    }
}

/// A receive buffer of the guest that was taken from the queue.
struct RxBuffer {
    head: u16,
    /// End of its part of [`Burst::headers`]; the part begins where the one before ends.
    headers_end: usize,
    /// Number of bytes of data that it can hold.
    capacity: usize,
}

/// The receive buffers that one read fills; the lists are reused for the next read.
#[derive(Default)]
pub struct Burst<'m> {
    buffers: Vec<RxBuffer>,
    headers: Vec<VolatileSlice<'m>>,
    data: Vec<VolatileSlice<'m>>,
    chain: Vec<VolatileSlice<'m>>,
}

/// The rx queue: to the guest.
pub struct RxQueue(Ring);

impl RxQueue {
    /// A queue that puts packets into the buffers of `queue`.
    pub fn new(queue: Queue) -> Self {
        Self(Ring { queue, used: false })
    }

    /// The queue in its present state.
    pub fn into_queue(self) -> Queue {
        self.0.queue
    }

    /// True when the guest has provided a buffer. If not, the driver will notify of the next.
    ///
    /// # Errors
    /// Broken rings.
    pub fn has_buffer(&mut self, memory: &GuestMemoryMmap) -> Result<bool, QueueError> {
        let queue = &mut self.0.queue;
        if queue.avail_idx(memory, Ordering::Acquire)?.0 != queue.next_avail() {
            queue.disable_notification(memory)?;
            return Ok(true);
        }
        Ok(queue.enable_notification(memory)?)
    }

    /// Sends one packet without data. False if there is no buffer.
    ///
    /// # Errors
    /// Broken rings or a chain that takes no packet.
    pub fn send<'m>(
        &mut self,
        memory: &'m GuestMemoryMmap,
        burst: &mut Burst<'m>,
        header: &Header,
    ) -> Result<bool, QueueError> {
        self.collect(memory, burst, 1, usize::MAX)?;
        let Some(buffer) = burst.buffers.first() else { return Ok(false) };
        buffers::copy_in(&burst.headers, &header.encode());
        self.0.complete(memory, buffer.head, HEADER_SIZE as u32)?;
        Ok(true)
    }

    /// Lets `read` fill at most `count` buffers with at most `limit` bytes, and sends what it has read in packets,
    /// whose headers `header` makes. Buffers that it has not filled stay in the queue.
    ///
    /// # Errors
    /// Broken rings or a chain that takes no packet.
    pub fn send_data<'m>(
        &mut self,
        memory: &'m GuestMemoryMmap,
        burst: &mut Burst<'m>,
        (limit, count): (u32, usize),
        read: impl FnOnce(&[VolatileSlice<'m>]) -> u32,
        header: impl Fn(u32) -> Header,
    ) -> Result<(), QueueError> {
        let start = self.0.queue.next_avail();
        self.collect(memory, burst, count, limit as usize)?;
        if burst.buffers.is_empty() {
            return Ok(());
        }
        let mut left = read(&burst.data) as usize;
        let mut used = 0;
        let mut headers = 0;
        for buffer in &burst.buffers {
            if left == 0 {
                break;
            }
            let length = left.min(buffer.capacity);
            left -= length;
            let packet = header(length as u32);
            buffers::copy_in(&burst.headers[headers..buffer.headers_end], &packet.encode());
            self.0.complete(memory, buffer.head, (HEADER_SIZE + length) as u32)?;
            headers = buffer.headers_end;
            used += 1;
        }
        self.0.queue.set_next_avail(start.wrapping_add(used));
        Ok(())
    }

    /// True when the driver wants an interrupt for what was sent since the last call.
    ///
    /// # Errors
    /// Broken rings.
    pub fn needs_interrupt(&mut self, memory: &GuestMemoryMmap) -> Result<bool, QueueError> {
        self.0.needs_interrupt(memory)
    }

    /// Takes up to `count` buffers, and no more than are needed for `limit` bytes of data.
    fn collect<'m>(
        &mut self,
        memory: &'m GuestMemoryMmap,
        burst: &mut Burst<'m>,
        count: usize,
        limit: usize,
    ) -> Result<(), QueueError> {
        burst.buffers.clear();
        burst.headers.clear();
        burst.data.clear();
        let mut room = 0;
        while burst.buffers.len() < count && room < limit {
            let Some(chain) = self.0.pop(memory)? else { break };
            let head = chain.head_index();
            burst.chain.clear();
            let found = buffers::collect(memory, chain, Access::Writable, &mut burst.chain)?;
            if found <= HEADER_SIZE {
                return Err(ChainError::TooShort { found, needed: HEADER_SIZE + 1 }.into());
            }
            let capacity = found - HEADER_SIZE;
            let before = burst.data.len();
            burst.data.extend_from_slice(&burst.chain);
            let kept = buffers::skip(&mut burst.data[before..], HEADER_SIZE).len();
            burst.data.drain(before..burst.data.len() - kept);
            buffers::truncate(&mut burst.chain, HEADER_SIZE);
            burst.headers.append(&mut burst.chain);
            burst.buffers.push(RxBuffer { head, headers_end: burst.headers.len(), capacity });
            room += capacity;
        }
        if room > limit {
            buffers::truncate(&mut burst.data, limit);
        }
        Ok(())
    }
}
