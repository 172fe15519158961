//! The channel between the device and the file server, which is another process: memory that both share, in slots of
//! one message each, and two pipes that carry the numbers of slots.
//!
//! ```text
//!  device ── request into a slot ──▶ pipe: slot, bytes, room ──▶ a thread of the server
//!  device ◀── pipe: slot, bytes, kind ◀── reply over the request ── the same thread
//! ```
//!
//! Neither side believes the other. What is in a slot may change at any time, so both copy before they look; the numbers that
//! come by a pipe are checked by whom they reach: a slot that there is, lengths within a slot and, in the device, a slot that
//! it had given away. A side that breaks these rules loses the channel.
//!
//! There are many slots, but the free one of the lowest number is always the next, so that few are ever touched. What large
//! messages have left in memory is given back when the device has had nothing to do for a while.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    unistd::{pipe2, read, write},
};
use vm_memory::VolatileSlice;

use crate::{files::MAX_MESSAGE, memory::PAGE_SIZE};

/// Largest number of messages that can be in flight.
pub const SLOTS: usize = 256;

/// Bytes from one slot to the next.
const SLOT_SIZE: usize = MAX_MESSAGE.next_multiple_of(PAGE_SIZE as usize);

/// Largest number of bytes that a free slot may keep in memory.
const KEPT: u32 = 2 * PAGE_SIZE as u32;

/// How many free slots may keep memory; the others keep nothing.
const KEEPING: usize = 4;

/// Number of notices that are read at a time.
const BATCH: usize = 32;

/// Sent instead of the number of a slot: the guest has reset its device.
const RESET: u32 = u32::MAX;

/// Bits of a word of the set of free slots.
const WORD: usize = u64::BITS as usize;

/// A message in a pipe: the number of a slot and two words, whose meaning depends on the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Notice([u32; 3]);

impl Notice {
    const SIZE: usize = size_of::<[u32; 3]>();

    fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let mut words = [0; 3];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            let mut word_bytes = [0; 4];
            word_bytes.copy_from_slice(bytes);
            *word = u32::from_ne_bytes(word_bytes);
        }
        Self(words)
    }
}

/// Why the channel cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side has sent a notice that breaks the rules.
    #[error("the other side of the channel broke its rules: {0}")]
    Rules(&'static str),
    /// The other side is gone.
    #[error("the other side of the channel is gone")]
    Gone,
    /// A pipe failed.
    #[error("the channel's pipe: {0}")]
    Pipe(#[from] Errno),
}

/// The memory, which is mapped shared before the fork.
#[derive(Debug)]
struct Region(NonNull<u8>);

impl Region {
    fn new() -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // Address space only: a page is there once somebody touches it.
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that is in use.
        let address = unsafe { libc::mmap(ptr::null_mut(), SLOTS * SLOT_SIZE, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address.cast()).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// All bytes of a slot. The caller must have checked its number.
    fn slot(&self, slot: usize) -> VolatileSlice<'_> {
        assert!(slot < SLOTS);
        // SAFETY: the slot lies in the mapping, which lasts as long as `self`; everything in it is accessed through volatile
        // slices only, and no reference to it is made.
        unsafe { VolatileSlice::new(self.0.add(slot * SLOT_SIZE).as_ptr(), SLOT_SIZE) }
    }

    /// Gives back the memory of a free slot from `start` on.
    fn give_back(&self, slot: usize, start: usize) {
        assert!(slot < SLOTS && start < SLOT_SIZE);
        // SAFETY: the range lies in the mapping; what it holds is not needed any more. Where it fails the memory stays.
        unsafe {
            libc::madvise(
                self.0.add(slot * SLOT_SIZE + start).as_ptr().cast(),
                SLOT_SIZE - start,
                libc::MADV_REMOVE,
            );
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this region's, and slices of it borrow from it.
        unsafe { libc::munmap(self.0.as_ptr().cast(), SLOTS * SLOT_SIZE) };
    }
}

// SAFETY: the memory is accessed through volatile slices only, by which both processes race on it by design.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// A new channel.
///
/// # Errors
/// mmap(2)'s or pipe2(2)'s.
pub fn new() -> io::Result<(DeviceEnd, ServerEnd)> {
    let region = Arc::new(Region::new()?);
    let (requests_out, requests_in) = pipe2(OFlag::O_CLOEXEC)?;
    let (replies_out, replies_in) = pipe2(OFlag::O_CLOEXEC)?;
    // There is room for a notice of each slot; if one does not fit, the server does not read.
    for pipe in [&requests_in, &replies_out] {
        nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    let device = DeviceEnd {
        region: Arc::clone(&region),
        requests: requests_in,
        replies: replies_out,
        free: [u64::MAX; SLOTS / WORD],
        lent: vec![Lent::default(); SLOTS],
        resetting: false,
        is_dirty: false,
    };
    Ok((device, ServerEnd { region, requests: requests_out, replies: replies_in }))
}

/// What the device knows about a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Lent {
    /// Largest number of bytes of the reply, while the server has the slot.
    room: Option<u32>,
    /// Number of its bytes that may be in memory.
    touched: u32,
}

/// A message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification {
    /// The reply is in the slot.
    Replied {
        /// The slot.
        slot: usize,
        /// Length of the reply, in bytes; 0 for a request without a reply.
        length: usize,
    },
    /// The request was malformed; a text in the slot says why.
    Malformed {
        /// The slot.
        slot: usize,
        /// Length of the text, in bytes.
        length: usize,
    },
    /// The server has closed and forgotten everything that the guest had.
    Reset,
}

/// The device's end.
#[derive(Debug)]
pub struct DeviceEnd {
    region: Arc<Region>,
    requests: OwnedFd,
    replies: OwnedFd,
    /// One bit for each slot; it is set if the slot is free.
    free: [u64; SLOTS / WORD],
    lent: Vec<Lent>,
    resetting: bool,
    is_dirty: bool,
}

impl DeviceEnd {
    /// The free slot with the lowest number.
    pub fn free_slot(&self) -> Option<usize> {
        let (word, bits) = self.free.iter().enumerate().find(|(_, bits)| **bits != 0)?;
        Some(word * WORD + bits.trailing_zeros() as usize)
    }

    /// All of a slot, to write a request to or to read a reply from.
    pub fn slot(&self, slot: usize) -> VolatileSlice<'_> {
        self.region.slot(slot)
    }

    /// Gives a free slot with a request of this length, in bytes, to the server, which may reply with up to `room`
    /// bytes.
    ///
    /// # Errors
    /// [`ChannelError`]: the server no longer reads.
    pub fn send(&mut self, slot: usize, request: usize, room: usize) -> Result<(), ChannelError> {
        assert!(request <= MAX_MESSAGE && room <= MAX_MESSAGE);
        self.free[slot / WORD] &= !(1 << (slot % WORD));
        let lent = &mut self.lent[slot];
        lent.room = Some(room as u32);
        lent.touched = lent.touched.max(request as u32);
        notify(&self.requests, Notice([slot as u32, request as u32, room as u32]))
    }

    /// Tells the server that the guest has reset its device. From now on, replies to earlier requests are ignored, and
    /// nothing may be sent before [`Notification::Reset`] has come.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn reset(&mut self) -> Result<(), ChannelError> {
        if !std::mem::replace(&mut self.resetting, true) {
            notify(&self.requests, Notice([RESET, 0, 0]))?;
        }
        Ok(())
    }

    /// True until the server has confirmed a reset.
    pub fn is_resetting(&self) -> bool {
        self.resetting
    }

    /// Passes the messages that have come to `each`, until that fails. The slots of all replies that have come are free
    /// afterwards.
    ///
    /// # Errors
    /// [`ChannelError`], or the error of `each`.
    pub fn receive<E: From<ChannelError>>(
        &mut self,
        mut each: impl FnMut(&Self, Notification) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let mut bytes = [0; BATCH * Notice::SIZE];
            let length = match read(&self.replies, &mut bytes) {
                Ok(0) => return Err(ChannelError::Gone.into()),
                Ok(length) if length % Notice::SIZE == 0 => length,
                Ok(_) => return Err(ChannelError::Rules("a part of a notice").into()),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(ChannelError::from(errno).into()),
            };
            let mut outcome = Ok(());
            for notice in bytes[..length].chunks_exact(Notice::SIZE).map(Notice::from_bytes) {
                let notification = self.check(notice)?;
                // The device fails with this error and may be reset later: no slot may be lost until then.
                if outcome.is_ok() {
                    outcome = each(self, notification);
                }
                if let Notification::Replied { slot, .. } | Notification::Malformed { slot, .. } =
                    notification
                {
                    self.free[slot / WORD] |= 1 << (slot % WORD);
                }
            }
            outcome?;
            if length < bytes.len() {
                return Ok(());
            }
        }
    }

    fn check(&mut self, Notice([slot, length, kind]): Notice) -> Result<Notification, ChannelError> {
        if slot == RESET && self.resetting {
            self.resetting = false;
            return Ok(Notification::Reset);
        }
        let index = slot as usize;
        let lent = self.lent.get_mut(index).ok_or(ChannelError::Rules("no such slot"))?;
        let room = lent.room.take().ok_or(ChannelError::Rules("a slot that it does not have"))?;
        lent.touched = lent.touched.max(length);
        self.is_dirty |= lent.touched > kept(index);
        match kind {
            REPLY if length <= room => Ok(Notification::Replied { slot: index, length: length as usize }),
            MALFORMED if length <= REASON_LIMIT as u32 => {
                Ok(Notification::Malformed { slot: index, length: length as usize })
            }
            _ => Err(ChannelError::Rules("a reply that is too long")),
        }
    }

    /// True while free slots have more in memory than they may keep.
    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Gives the memory of free slots back that they may not keep.
    pub fn clean(&mut self) {
        for (slot, lent) in self.lent.iter_mut().enumerate() {
            let kept = kept(slot);
            if lent.room.is_none() && lent.touched > kept {
                self.region.give_back(slot, kept as usize);
                lent.touched = kept;
            }
        }
        // Slots that the server has are looked at when they come back.
        self.is_dirty = false;
    }
}

impl AsFd for DeviceEnd {
    /// Readable when there is a message to [`DeviceEnd::receive`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.replies.as_fd()
    }
}

fn kept(slot: usize) -> u32 {
    if slot < KEEPING { KEPT } else { 0 }
}

/// Kinds of notices from the server.
const REPLY: u32 = 0;
const MALFORMED: u32 = 1;

/// Longest text of what is wrong with a request, in bytes.
pub const REASON_LIMIT: usize = 256;

fn notify(pipe: &OwnedFd, notice: Notice) -> Result<(), ChannelError> {
    // A write of up to PIPE_BUF bytes is whole or fails.
    loop {
        match write(pipe, &notice.to_bytes()) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::EPIPE) => return Err(ChannelError::Gone),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A message of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A request is in a slot.
    Request {
        /// The slot.
        slot: usize,
        /// Length of the request, in bytes.
        request: usize,
        /// Largest length of the reply, in bytes.
        room: usize,
    },
    /// The server must forget everything that the guest had.
    Reset,
}

/// The server's end, which its threads share.
#[derive(Debug)]
pub struct ServerEnd {
    region: Arc<Region>,
    requests: OwnedFd,
    replies: OwnedFd,
}

impl ServerEnd {
    /// The descriptors of this end.
    pub fn descriptors(&self) -> [i32; 2] {
        [self.requests.as_raw_fd(), self.replies.as_raw_fd()]
    }

    /// Waits for a message of the device.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn next(&self) -> Result<Wanted, ChannelError> {
        let mut bytes = [0; Notice::SIZE];
        let length = loop {
            match read(&self.requests, &mut bytes) {
                Err(Errno::EINTR) => {}
                result => break result?,
            }
        };
        match length {
            0 => return Err(ChannelError::Gone),
            Notice::SIZE => {}
            _ => return Err(ChannelError::Rules("a part of a notice")),
        }
        match Notice::from_bytes(&bytes).0 {
            [RESET, ..] => Ok(Wanted::Reset),
            words => {
                let [slot, request, room] = words.map(|word| word as usize);
                if slot >= SLOTS || request > MAX_MESSAGE || room > MAX_MESSAGE {
                    return Err(ChannelError::Rules("no such slot, or more than fits in one"));
                }
                Ok(Wanted::Request { slot, request, room })
            }
        }
    }

    /// All bytes of a slot that has come with a request.
    pub fn slot(&self, slot: usize) -> VolatileSlice<'_> {
        self.region.slot(slot)
    }

    /// Gives a slot back with a reply of this length, in bytes.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn reply(&self, slot: usize, length: usize) -> Result<(), ChannelError> {
        notify(&self.replies, Notice([slot as u32, length as u32, REPLY]))
    }

    /// Gives a slot back whose request was malformed.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn malformed(&self, slot: usize, reason: &str) -> Result<(), ChannelError> {
        let reason = &reason.as_bytes()[..reason.len().min(REASON_LIMIT)];
        self.region.slot(slot).copy_from(reason);
        notify(&self.replies, Notice([slot as u32, reason.len() as u32, MALFORMED]))
    }

    /// Tells the device that the reset is done.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn has_reset(&self) -> Result<(), ChannelError> {
        notify(&self.replies, Notice([RESET, 0, 0]))
    }
}

#[cfg(test)]
#[path = "channel_test.rs"]
mod tests;
