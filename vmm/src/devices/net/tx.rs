//! Packets from the guest.

use vm_memory::VolatileSlice;

use super::{
    MAX_PACKET,
    ring::{Ring, RingError},
    tap::{Failure, Tap},
};
use crate::virtio::buffers::{self, Access};

/// The result of one attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The tap has another packet.
    Packet,
    /// A packet was lost, because the tap does not take it, or not now.
    Lost,
    /// The guest has no packet; its driver will notify.
    NoPacket,
    /// The tap has gone, and the packet with it.
    Gone,
}

/// The transmit queue.
pub struct TxQueue<'m> {
    ring: Ring<'m>,
    slices: Vec<VolatileSlice<'m>>,
    iovecs: Vec<libc::iovec>,
}

impl<'m> TxQueue<'m> {
    /// A queue that takes packets from `ring`.
    pub fn new(ring: Ring<'m>) -> Self {
        Self { ring, slices: Vec::new(), iovecs: Vec::new() }
    }

    /// Moves one packet from the guest to the tap.
    ///
    /// # Errors
    /// The driver has broken the rules.
    pub fn send(&mut self, tap: &Tap) -> Result<Sent, RingError> {
        self.slices.clear();
        let Some(chain) = self.ring.take(Access::Readable, &mut self.slices)? else {
            return Ok(Sent::NoPacket);
        };
        let sent = if chain.length > MAX_PACKET {
            Sent::Lost
        } else {
            self.iovecs.clear();
            self.iovecs.extend(self.slices.iter().map(buffers::iovec));
            // SAFETY: guest memory stays mapped while there are slices of it; the kernel only reads it, and tolerates that
            // the guest writes to it meanwhile.
            match unsafe { tap.write(&self.iovecs) } {
                Ok(()) => Sent::Packet,
                Err(Failure::Gone) => Sent::Gone,
                Err(Failure::Later | Failure::Packet) => Sent::Lost,
            }
        };
        self.ring.give_back([(chain.head, 0)])?;
        Ok(sent)
    }

    /// True when the driver wants an interrupt for what was sent since the last call.
    ///
    /// # Errors
    /// Broken rings.
    pub fn needs_interrupt(&mut self) -> Result<bool, RingError> {
        self.ring.needs_interrupt()
    }
}
