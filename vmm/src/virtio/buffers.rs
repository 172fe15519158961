//! Guest memory that descriptors point to, as lists of slices: collecting, cutting and copying them.

use virtio_queue::{DescriptorChain, Queue, QueueT, desc::split::Descriptor};
use vm_memory::{
    Address, GuestAddress, GuestMemory, GuestMemoryMmap, GuestMemoryRegion, VolatileMemory, VolatileSlice,
};

/// Largest number of descriptors in one chain. Linux makes at most 18 (a header and MAX_SKB_FRAGS pages).
pub const MAX_DESCRIPTORS: usize = 128;

/// Bytes of a descriptor.
const DESCRIPTOR: usize = size_of::<Descriptor>();

/// A descriptor chain that no driver makes.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The chain is longer than the device accepts.
    #[error("a chain of more than {0} descriptors")]
    TooManyDescriptors(usize),
    /// A buffer is device-writable but must be readable, or the other way round.
    #[error("a buffer that is {0}")]
    WrongAccess(&'static str),
    /// A buffer is not in guest memory.
    #[error("a buffer of {length:#x} bytes at {address:#x}, outside guest memory")]
    Outside {
        /// Guest physical address.
        address: u64,
        /// Length, in bytes.
        length: u32,
    },
    /// The chain is too short for what it should hold.
    #[error("a chain of {found} bytes for a packet of {needed}")]
    TooShort {
        /// Bytes in the chain.
        found: usize,
        /// Bytes of the packet.
        needed: usize,
    },
}

/// The side that writes to a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The device reads what the driver has written.
    Readable,
    /// The device writes.
    Writable,
}

/// Appends the buffers of `chain` to `slices` and returns their total length in bytes.
///
/// # Errors
/// [`ChainError`], other than `TooShort`.
pub fn collect<'m>(
    memory: &'m GuestMemoryMmap,
    chain: DescriptorChain<&'m GuestMemoryMmap>,
    access: Access,
    slices: &mut Vec<VolatileSlice<'m>>,
) -> Result<usize, ChainError> {
    let mut total = 0;
    for (index, descriptor) in chain.enumerate() {
        if index == MAX_DESCRIPTORS {
            return Err(ChainError::TooManyDescriptors(MAX_DESCRIPTORS));
        }
        if let Some(slice) = buffer(memory, &descriptor, access)? {
            // DescriptorChain ends before 2^32 bytes.
            total += slice.len();
            slices.push(slice);
        }
    }
    Ok(total)
}

/// Appends the buffers of `chain`, at most `most`: those that the device reads to `readable`, and those that it writes,
/// which come after them, to `writable`.
///
/// # Errors
/// [`ChainError`], other than `TooShort`.
pub fn collect_request<'m>(
    memory: &'m GuestMemoryMmap,
    chain: impl Iterator<Item = Descriptor>,
    most: usize,
    readable: &mut Vec<VolatileSlice<'m>>,
    writable: &mut Vec<VolatileSlice<'m>>,
) -> Result<(), ChainError> {
    let mut access = Access::Readable;
    for (index, descriptor) in chain.enumerate() {
        if index == most {
            return Err(ChainError::TooManyDescriptors(most));
        }
        if descriptor.is_write_only() {
            access = Access::Writable;
        }
        let slices = if access == Access::Readable { &mut *readable } else { &mut *writable };
        slices.extend(buffer(memory, &descriptor, access)?);
    }
    Ok(())
}

fn buffer<'m>(
    memory: &'m GuestMemoryMmap,
    descriptor: &Descriptor,
    access: Access,
) -> Result<Option<VolatileSlice<'m>>, ChainError> {
    match (access, descriptor.is_write_only()) {
        (Access::Readable, true) => return Err(ChainError::WrongAccess("writable where the device reads")),
        (Access::Writable, false) => {
            return Err(ChainError::WrongAccess("not writable where the device writes"));
        }
        _ => {}
    }
    if descriptor.len() == 0 {
        return Ok(None);
    }
    slice_at(memory, descriptor.addr(), descriptor.len() as usize)
        .map(Some)
        .ok_or(ChainError::Outside { address: descriptor.addr().raw_value(), length: descriptor.len() })
}

/// A range of guest memory in one region. [`GuestMemory::get_slice`] looks for ranges in several first, in vain and at length.
fn slice_at(memory: &GuestMemoryMmap, start: GuestAddress, length: usize) -> Option<VolatileSlice<'_>> {
    let (region, start) = memory.to_region_addr(start)?;
    region.get_slice(start, length).ok()
}

/// The descriptors of a chain. It goes wrong where [`DescriptorChain`] does, but finds each table in guest memory once.
#[derive(Debug)]
pub struct Descriptors<'m> {
    memory: &'m GuestMemoryMmap,
    table: VolatileSlice<'m>,
    size: u16,
    next: Option<u16>,
    /// How many descriptors may still come; a loop has more.
    left: u16,
    is_indirect: bool,
    bytes: u32,
}

impl<'m> Descriptors<'m> {
    /// Of the chain of a queue that begins at this descriptor.
    pub fn of(memory: &'m GuestMemoryMmap, queue: &Queue, head: u16) -> Option<Self> {
        let size = queue.size();
        let table = slice_at(memory, GuestAddress(queue.desc_table()), usize::from(size) * DESCRIPTOR)?;
        Some(Self { memory, table, size, next: Some(head), left: size, is_indirect: false, bytes: 0 })
    }

    /// Goes on in the table that a descriptor names.
    fn enter(&mut self, descriptor: Descriptor) -> Option<()> {
        let length = descriptor.len() as usize;
        if self.is_indirect || !length.is_multiple_of(DESCRIPTOR) {
            return None;
        }
        self.size = u16::try_from(length / DESCRIPTOR).ok()?;
        self.table = slice_at(self.memory, descriptor.addr(), length)?;
        (self.next, self.left, self.is_indirect) = (Some(0), self.size, true);
        Some(())
    }
}

impl Iterator for Descriptors<'_> {
    type Item = Descriptor;

    fn next(&mut self) -> Option<Descriptor> {
        loop {
            // What ends in an error ends for good.
            let index = self.next.take().filter(|index| *index < self.size && self.left > 0)?;
            let descriptor: Descriptor = self.table.get_ref(usize::from(index) * DESCRIPTOR).ok()?.load();
            if descriptor.refers_to_indirect_table() {
                self.enter(descriptor)?;
                continue;
            }
            self.left -= 1;
            // A chain is shorter than 4 GiB (virtio 1.3 §2.7.5).
            self.bytes = self.bytes.checked_add(descriptor.len())?;
            self.next = descriptor.has_next().then(|| descriptor.next());
            return Some(descriptor);
        }
    }
}

/// Drops the first `count` bytes.
pub fn skip<'s, 'm>(slices: &'s mut [VolatileSlice<'m>], mut count: usize) -> &'s mut [VolatileSlice<'m>] {
    let whole = slices
        .iter()
        .take_while(|slice| match count.checked_sub(slice.len()) {
            Some(left) => {
                count = left;
                true
            }
            None => false,
        })
        .count();
    let rest = &mut slices[whole..];
    if let Some(first) = rest.first_mut()
        && let Ok(tail) = first.offset(count)
    {
        *first = tail;
    }
    rest
}

/// Drops all but the first `count` bytes.
pub fn truncate(slices: &mut Vec<VolatileSlice<'_>>, mut count: usize) {
    let mut kept = 0;
    for slice in slices.iter_mut() {
        if count == 0 {
            break;
        }
        if let Ok(head) = slice.subslice(0, count) {
            *slice = head;
        }
        count -= slice.len();
        kept += 1;
    }
    slices.truncate(kept);
}

/// Copies from the start of `slices` until `bytes` is full, and returns the number of bytes.
pub fn copy_out(slices: &[VolatileSlice<'_>], bytes: &mut [u8]) -> usize {
    let mut done = 0;
    for slice in slices {
        done += slice.copy_to(&mut bytes[done..]);
    }
    done
}

/// Copies `bytes` to the start of `slices`.
pub fn copy_in(slices: &[VolatileSlice<'_>], mut bytes: &[u8]) {
    for slice in slices {
        let (now, later) = bytes.split_at(slice.len().min(bytes.len()));
        slice.copy_from(now);
        bytes = later;
    }
}

/// Copies from the start of `from` to the start of `to` as many bytes as there are and fit, and returns their number.
pub fn copy_between(from: &[VolatileSlice<'_>], to: &[VolatileSlice<'_>]) -> usize {
    let mut total = 0;
    let (mut from, mut to) = (from.iter().copied(), to.iter().copied());
    let (mut source, mut target) = (from.next(), to.next());
    while let (Some(reads), Some(writes)) = (source, target) {
        let count = reads.len().min(writes.len());
        reads.copy_to_volatile_slice(writes);
        total += count;
        // An empty rest is followed by the next slice.
        source = if reads.len() == count { from.next() } else { reads.offset(count).ok() };
        target = if writes.len() == count { to.next() } else { writes.offset(count).ok() };
    }
    total
}

/// Number of bytes of all slices together.
pub fn total(slices: &[VolatileSlice<'_>]) -> usize {
    slices.iter().map(VolatileSlice::len).sum()
}

/// The slice in the form for system calls; the caller keeps guest memory mapped during the call.
pub fn iovec(slice: &VolatileSlice<'_>) -> libc::iovec {
    let guard = slice.ptr_guard_mut();
    libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() }
}

#[cfg(test)]
#[path = "buffers_test.rs"]
mod tests;
