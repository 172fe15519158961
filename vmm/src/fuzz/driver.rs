//! A driver that writes into its queues whatever the input says.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::input::Input;
use crate::virtio::queue_fixture::{Buffer, QueueFixture};

/// Most descriptors, and most chains, that are written at a time.
const MAX: u8 = 24;

/// Most bytes of memory that are written at a time.
const MAX_BYTES: u8 = 255;

/// Bits of a descriptor's first byte besides its flags, which are the lowest three.
mod odd {
    /// The address is any; otherwise it is near the place that the device's buffers have.
    pub const ADDRESS: u8 = 1 << 4;
    /// The length is any; otherwise it is below 2^16.
    pub const LENGTH: u8 = 1 << 5;
    /// The next descriptor is any; otherwise it is the one that follows.
    pub const NEXT: u8 = 1 << 6;
}

/// Writes bytes and descriptors and makes chains available; buffers are at `buffers` or after.
pub fn provoke(memory: &GuestMemoryMmap, queue: &mut QueueFixture, buffers: u64, input: &mut Input<'_>) {
    let place = GuestAddress(buffers + u64::from(input.u8()) * 16);
    let count = input.u8() % MAX_BYTES;
    // What does not fit into memory is left out.
    let _ = memory.write(input.bytes(count.into()), place);
    for index in 0..u16::from(input.u8() % MAX) {
        let kind = input.u8();
        let address = match kind & odd::ADDRESS {
            0 => buffers + u64::from(input.u16()),
            _ => input.u64(),
        };
        let length = if kind & odd::LENGTH == 0 { input.u16().into() } else { input.u32() };
        let next = if kind & odd::NEXT == 0 { index + 1 } else { input.u16() };
        queue.write_descriptor(index, Buffer { address, length, writable: false }, (kind & 7).into(), next);
    }
    let chains = input.u8();
    for _ in 0..chains % MAX {
        queue.publish(input.u8().into());
    }
    if chains & 0x80 != 0 {
        queue.set_avail_index(input.u16());
    }
}
