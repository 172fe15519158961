//! A reply, which is written over the request from the buffer's start.

use vm_memory::{ByteValued, VolatileSlice};

use super::{
    Malformed,
    abi::OutHeader,
    request::Failure,
    sys::{Errno, Shared},
};

const HEADER: usize = size_of::<OutHeader>();

/// Number of bytes that an operation has put after the header.
pub type Outcome = Result<usize, Failure>;

/// The space for a reply.
pub struct Reply<'a> {
    header: VolatileSlice<'a>,
    body: VolatileSlice<'a>,
}

impl<'a> Reply<'a> {
    /// A reply in the first `room` bytes of `buffer`.
    pub fn new(buffer: VolatileSlice<'a>, room: usize) -> Result<Self, Malformed> {
        let space =
            buffer.subslice(0, room).map_err(|_| Malformed("the reply's room is not in its buffer"))?;
        let (header, body) = space.split_at(HEADER).map_err(|_| Malformed("no room for a reply"))?;
        Ok(Self { header, body })
    }

    /// Number of bytes that fit after the header.
    pub fn room(&self) -> usize {
        self.body.len()
    }

    /// Puts a structure at an offset after the header, and returns the offset of its end. There must be room.
    pub fn put<T: ByteValued>(&self, offset: usize, value: &T) -> usize {
        self.put_bytes(offset, value.as_slice())
    }

    /// Puts bytes at an offset after the header, and returns the offset of their end.
    pub fn put_bytes(&self, offset: usize, bytes: &[u8]) -> usize {
        // Bytes without room are cut off. That would be a bug of this program; the guest can only read its own buffer.
        debug_assert!(offset + bytes.len() <= self.room());
        if let Ok(space) = self.body.offset(offset) {
            space.copy_from(bytes);
        }
        offset + bytes.len()
    }

    /// The first bytes after the header, at most `most`, for the kernel to fill.
    pub fn data(&self, most: usize) -> Shared {
        let size = most.min(self.body.len());
        // SAFETY: the slice is mapped for its lifetime, which is longer than the reply's.
        unsafe { Shared::new(self.body.ptr_guard_mut().as_ptr(), size) }
    }

    /// Puts the header and returns the reply's length.
    pub fn finish(&self, unique: u64, outcome: Result<usize, Errno>) -> usize {
        let (body, error) = match outcome {
            Ok(body) => (body.min(self.room()), 0),
            Err(errno) => (0, -errno.number()),
        };
        let length = HEADER + body;
        // It is less than the room, which a slot bounds.
        let header = OutHeader { len: length as u32, error, unique };
        self.header.copy_from(header.as_slice());
        length
    }
}
