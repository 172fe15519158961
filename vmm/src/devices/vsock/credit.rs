//! Credit of one connection, both ways (virtio 1.3 §5.10.6.3).
//!
//! Each side says with every packet how large its receive buffer is and how many bytes have left it. So each side knows
//! how much the other can still take:
//!
//! ```text
//!   free at the peer = peer's buf_alloc − (bytes sent to it − peer's fwd_cnt)
//! ```
//!
//! Counters wrap at 2^32.

/// An error: the guest has sent more than it had credit for.
#[derive(Debug, PartialEq, Eq)]
pub struct Overrun;

/// The counters of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Credit {
    /// Largest number of bytes from the guest that are kept here, as announced.
    window: u32,
    /// Bytes that the guest has sent.
    received: u32,
    /// Number of these bytes that were written to the host's socket.
    forwarded: u32,
    /// `forwarded` as the guest last heard it.
    announced: u32,
    /// Size of the guest's receive buffer.
    guest_window: u32,
    /// Bytes that have left the guest's receive buffer.
    guest_forwarded: u32,
    /// Bytes sent to the guest.
    sent: u32,
}

impl Credit {
    /// A connection that keeps at most `window` bytes for the host's side.
    pub fn new(window: u32) -> Self {
        Self { window, received: 0, forwarded: 0, announced: 0, guest_window: 0, guest_forwarded: 0, sent: 0 }
    }

    /// Largest number of bytes from the guest that are kept.
    pub fn window(&self) -> u32 {
        self.window
    }

    /// Takes over the credit that the guest has announced.
    pub fn learn(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.guest_window = buf_alloc;
        self.guest_forwarded = fwd_cnt;
    }

    /// Bytes that the guest can take now. 0 if the guest's numbers contradict each other.
    pub fn allowance(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.guest_forwarded);
        self.guest_window.saturating_sub(in_flight)
    }

    /// Counts `count` bytes that were sent to the guest.
    pub fn spend(&mut self, count: u32) {
        self.sent = self.sent.wrapping_add(count);
    }

    /// Counts `count` bytes that have come from the guest.
    ///
    /// # Errors
    /// The guest had no credit for them; nothing is counted.
    pub fn receive(&mut self, count: u32) -> Result<(), Overrun> {
        let kept = self.received.wrapping_sub(self.forwarded);
        if count > self.window - kept {
            return Err(Overrun);
        }
        self.received = self.received.wrapping_add(count);
        Ok(())
    }

    /// Counts `count` bytes of these that were written to the host's socket.
    pub fn forward(&mut self, count: u32) {
        self.forwarded = self.forwarded.wrapping_add(count);
    }

    /// True when the guest should be told of the room that has become free.
    ///
    /// That is the case when, by the last announcement, half of its credit is used. Linux also never has more in flight
    /// than its *own* receive buffer, which may be smaller; without counting that, both sides would wait.
    pub fn is_update_due(&self) -> bool {
        let believed_in_flight = self.received.wrapping_sub(self.announced);
        self.forwarded != self.announced && believed_in_flight > self.window.min(self.guest_window) / 2
    }

    /// `buf_alloc` and `fwd_cnt` for a packet that goes out now.
    pub fn announce(&mut self) -> (u32, u32) {
        self.announced = self.forwarded;
        (self.window, self.forwarded)
    }
}

#[cfg(test)]
#[path = "credit_test.rs"]
mod tests;
