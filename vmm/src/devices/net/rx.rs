//! Packets to the guest.
//!
//! A tap shows a packet's length only when it is read, so buffers for the longest packet are taken in advance. They go back
//! to the driver in their order, as many as the packet has filled. If the guest has too few buffers for a packet, the rest of
//! it is read into the device's own buffer and waits here: a slow guest loses no packet, and at most one packet is kept.

use std::collections::VecDeque;

use vm_memory::VolatileSlice;

use super::{
    HEADER_SIZE, MAX_PACKET,
    ring::{Chain, Ring, RingError},
    tap::{Failure, Tap},
};
use crate::virtio::buffers::{self, Access};

/// Largest number of slices of guest memory in one system call; with a buffer of the device at the end, that is
/// UIO_MAXIOV.
const MAX_SLICES: usize = 1023;

/// Offset in the header of the number of the packet's buffers (§5.1.6.1), in bytes.
const NUM_BUFFERS: usize = 10;

/// The result of one attempt to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The guest has another packet.
    Packet,
    /// A packet was lost, because no buffer was long enough.
    Lost,
    /// The guest has to provide buffers first; its driver will notify.
    NoBuffers,
    /// The tap has no packet.
    NoPacket,
    /// The tap has gone.
    Gone,
}

/// Part of a packet for which there were no buffers.
#[derive(Clone, Copy, Debug)]
struct Spilled {
    /// Number of its bytes that are in the guest's buffers.
    before: usize,
    /// Number of bytes of the whole packet.
    total: usize,
}

/// The receive queue.
pub struct RxQueue<'m> {
    ring: Ring<'m>,
    /// Whether a packet may take several buffers (VIRTIO_NET_F_MRG_RXBUF).
    mergeable: bool,
    held: VecDeque<Chain>,
    /// The slices of the chains in `held`.
    slices: VecDeque<VolatileSlice<'m>>,
    /// Number of bytes in `held`.
    room: usize,
    iovecs: Vec<libc::iovec>,
    beyond: Box<[u8]>,
    spilled: Option<Spilled>,
}

impl<'m> RxQueue<'m> {
    /// A queue that puts packets into the buffers of `ring`.
    pub fn new(ring: Ring<'m>, mergeable: bool) -> Self {
        Self {
            ring,
            mergeable,
            held: VecDeque::new(),
            slices: VecDeque::new(),
            room: 0,
            iovecs: Vec::new(),
            // It costs memory only once it is used.
            beyond: vec![0; MAX_PACKET].into(),
            spilled: None,
        }
    }

    /// Moves one packet from the tap to the guest.
    ///
    /// # Errors
    /// The driver has broken the rules.
    pub fn receive(&mut self, tap: &Tap) -> Result<Received, RingError> {
        self.hold_buffers()?;
        if let Some(spilled) = self.spilled {
            return self.receive_rest(spilled);
        }
        let Some(first) = self.held.front() else { return Ok(Received::NoBuffers) };
        let usable = if self.mergeable { MAX_SLICES } else { first.slices.min(MAX_SLICES) };
        self.iovecs.clear();
        self.iovecs.extend(self.slices.iter().take(usable).map(buffers::iovec));
        let before: usize = self.iovecs.iter().map(|iovec| iovec.iov_len).sum();
        let beyond = libc::iovec { iov_base: self.beyond.as_mut_ptr().cast(), iov_len: self.beyond.len() };
        self.iovecs.push(beyond);
        // SAFETY: guest memory stays mapped while this has slices of it, and no references to it exist; the last buffer is
        // our own.
        let total = match unsafe { tap.read(&self.iovecs) } {
            Ok(total) => total,
            Err(Failure::Gone) => return Ok(Received::Gone),
            // After a failure, the next packet is another attempt.
            Err(Failure::Later | Failure::Packet) => return Ok(Received::NoPacket),
        };
        if total <= before {
            self.complete(total)?;
            return Ok(Received::Packet);
        }
        if !self.mergeable || total > MAX_PACKET {
            return Ok(Received::Lost);
        }
        let spilled = Spilled { before, total };
        self.spilled = Some(spilled);
        self.hold_buffers()?;
        self.receive_rest(spilled)
    }

    /// True when the driver wants an interrupt for what was received since the last call.
    ///
    /// # Errors
    /// Broken rings.
    pub fn needs_interrupt(&mut self) -> Result<bool, RingError> {
        self.ring.needs_interrupt()
    }

    /// Takes buffers from the queue until the longest packet has room.
    fn hold_buffers(&mut self) -> Result<(), RingError> {
        let enough = if self.mergeable { MAX_PACKET } else { 1 };
        while self.room < enough && !self.is_full() {
            let Some(chain) = self.ring.take(Access::Writable, &mut self.slices)? else { break };
            self.room += chain.length;
            self.held.push_back(chain);
        }
        Ok(())
    }

    /// Whether no more buffers can be taken.
    fn is_full(&self) -> bool {
        self.held.len() >= self.ring.size() || self.slices.len() >= MAX_SLICES
    }

    fn receive_rest(&mut self, Spilled { before, total }: Spilled) -> Result<Received, RingError> {
        if self.room < total {
            if !self.is_full() {
                return Ok(Received::NoBuffers);
            }
            self.spilled = None;
            return Ok(Received::Lost);
        }
        self.spilled = None;
        copy_in(&self.slices, before, &self.beyond[..total - before]);
        self.complete(total)?;
        Ok(Received::Packet)
    }

    /// Gives back the buffers that a packet of `total` bytes fills; there must be enough.
    fn complete(&mut self, total: usize) -> Result<(), RingError> {
        let mut left = total.max(HEADER_SIZE);
        let used = self.held.iter().take_while(|chain| {
            let needed = left > 0;
            left = left.saturating_sub(chain.length);
            needed
        });
        let count = used.count();
        // No more than a queue's size, 256.
        copy_in(&self.slices, NUM_BUFFERS, &(count as u16).to_le_bytes());
        let mut left = total;
        self.ring.give_back(self.held.iter().take(count).map(|chain| {
            let length = chain.length.min(left);
            left -= length;
            (chain.head, length)
        }))?;
        for chain in self.held.drain(..count) {
            self.room -= chain.length;
            self.slices.drain(..chain.slices);
        }
        Ok(())
    }
}

/// Copies `bytes` to `offset` in the bytes of `slices`.
fn copy_in(slices: &VecDeque<VolatileSlice<'_>>, mut offset: usize, mut bytes: &[u8]) {
    for slice in slices {
        if bytes.is_empty() {
            break;
        }
        match slice.offset(offset) {
            Ok(rest) if !rest.is_empty() => {
                let (now, later) = bytes.split_at(rest.len().min(bytes.len()));
                rest.copy_from(now);
                bytes = later;
                offset = 0;
            }
            _ => offset -= slice.len(),
        }
    }
}
