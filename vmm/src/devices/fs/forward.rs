//! The device's thread: it passes requests from the guest's queues to the file server, and the replies back.
//!
//! ```text
//!  queue ─▶ chain ─▶ header ─▶ whose turn? ─ yes ─▶ copied into a slot ─▶ file server
//!                                   └─ no ─▶ waits                            │
//!  queue ◀─ used ring ◀─ copied into the chain's buffers ◀── slot ◀───────────┘
//! ```
//!
//! Replies come in any order. Only the header of a request is looked at, and it is read once: the server gets the same
//! bytes that were looked at.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Instant,
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestMemoryMmap, VolatileSlice};
use vmm_sys_util::eventfd::EventFd;

use super::{
    FORGET_QUEUE, QUEUE_SIZES,
    channel::{ChannelError, DeviceEnd, Notification, REASON_LIMIT, SLOTS},
    turns::{STUCK_AFTER, Turns},
};
use crate::{
    files::{MAX_MESSAGE, share_of},
    virtio::{
        buffers::{self, ChainError, Descriptors},
        interrupt::Interrupt,
    },
};

/// Largest number of descriptors of a chain: Linux makes one for each of 256 pages and a few for headers and arguments.
const MAX_DESCRIPTORS: usize = 512;

/// Bytes of `struct fuse_in_header`.
const HEADER_SIZE: usize = 40;

/// Bytes of `struct fuse_out_header`.
const REPLY_HEADER_SIZE: usize = 16;

/// The number that replaces the share's for requests from the queue for FORGET: they have turns of their own, because
/// none may wait for a share that is stuck.
const FORGETS: u32 = u32::MAX;

/// How long the device waits for more before it gives back what large messages have left in memory.
const IDLE_MS: u16 = 1000;

const REPLIES: u64 = QUEUE_SIZES.len() as u64;
const STOP: u64 = REPLIES + 1;

/// Why the device cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The driver has broken the rules of a ring.
    #[error("the guest's driver broke the rules of its rings: {0}")]
    Rings(#[from] virtio_queue::Error),
    /// A chain is not valid.
    #[error("the guest's driver made {0}")]
    Chain(#[from] ChainError),
    /// A chain does not have the size of a request.
    #[error("the guest's driver made a request of {request} bytes with room for a reply of {room}")]
    Size {
        /// Length of the request, in bytes.
        request: usize,
        /// Room for the reply, in bytes.
        room: usize,
    },
    /// A ring has no room for as many requests as are not answered yet.
    #[error("the guest's driver made more requests available than its ring of {0} holds")]
    TooMany(u16),
    /// The request was another one when its turn came.
    #[error("the guest's driver changed a request that it had made available")]
    Changed,
    /// The file server does not understand a request.
    #[error("malformed request: {0}")]
    Malformed(String),
    /// The channel to the file server failed.
    #[error("the file server: {0}")]
    Channel(#[from] ChannelError),
    /// Waiting for events failed.
    #[error("waiting for events: {0}")]
    Epoll(#[from] Errno),
}

/// A request that the server has.
struct InFlight<'m> {
    queue: usize,
    head: u16,
    share: u32,
    /// The buffers for the reply.
    writable: Vec<VolatileSlice<'m>>,
}

/// A request that waits for its turn.
struct Waiting {
    queue: usize,
    head: u16,
}

/// The state of the thread.
pub struct Forwarder<'m> {
    memory: &'m GuestMemoryMmap,
    queues: Vec<Queue>,
    queue_events: Vec<EventFd>,
    /// For each queue, how many requests were taken and not answered yet. A driver that makes the same one available again and
    /// again could have any number wait.
    taken: [u16; QUEUE_SIZES.len()],
    /// For each queue, whether buffers were used since the driver was last asked whether it wants an interrupt.
    used: [bool; QUEUE_SIZES.len()],
    interrupt: &'m Interrupt,
    channel: &'m mut DeviceEnd,
    in_flight: Vec<Option<InFlight<'m>>>,
    turns: Turns<Waiting>,
    /// Buffers of the current request; the list is reused to avoid allocations.
    readable: Vec<VolatileSlice<'m>>,
    /// Empty lists of buffers for reuse.
    spare: Vec<Vec<VolatileSlice<'m>>>,
}

impl<'m> Forwarder<'m> {
    /// A forwarder between these queues and the channel.
    pub fn new(
        memory: &'m GuestMemoryMmap,
        queues: Vec<Queue>,
        queue_events: Vec<EventFd>,
        interrupt: &'m Interrupt,
        channel: &'m mut DeviceEnd,
    ) -> Self {
        let most = queues.iter().map(|queue| usize::from(queue.size())).max().unwrap_or(0);
        Self {
            memory,
            queues,
            queue_events,
            taken: [0; QUEUE_SIZES.len()],
            used: [false; QUEUE_SIZES.len()],
            interrupt,
            channel,
            in_flight: std::iter::repeat_with(|| None).take(SLOTS).collect(),
            turns: Turns::new(most),
            readable: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Works until it is told to stop, or until the device fails. Returns the queues if all requests that were taken
    /// from them have been answered.
    pub fn run(mut self, epoll: &Epoll) -> Option<Vec<Queue>> {
        loop {
            match self.round(epoll) {
                Ok(true) => {}
                Ok(false) => {
                    let is_idle = self.in_flight.iter().all(Option::is_none) && self.turns.is_empty();
                    return is_idle.then_some(self.queues);
                }
                Err(error) => {
                    self.interrupt.fail(&error);
                    return None;
                }
            }
        }
    }

    /// Waits for events and handles them; false if one of them asks to stop.
    ///
    /// # Errors
    /// The device cannot go on.
    pub fn round(&mut self, epoll: &Epoll) -> Result<bool, ForwardError> {
        let is_crowded = self.turns.is_crowded();
        let timeout = if is_crowded {
            // STUCK_AFTER is in whole milliseconds.
            EpollTimeout::from(STUCK_AFTER.as_millis() as u16)
        } else if self.channel.is_dirty() {
            EpollTimeout::from(IDLE_MS)
        } else {
            EpollTimeout::NONE
        };
        let mut events = [EpollEvent::empty(); QUEUE_SIZES.len() + 2];
        let ready = match epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => return Ok(true),
            ready => ready?,
        };
        if ready == 0 {
            self.channel.clean();
        }
        for event in &events[..ready] {
            match event.data() {
                STOP => return Ok(false),
                REPLIES => self.take_replies()?,
                queue => self.take_requests(queue as usize)?,
            }
        }
        self.start_waiting()?;
        if is_crowded {
            while let Some(waiting) = self.turns.shed(Instant::now()) {
                self.refuse(waiting)?;
            }
        }
        for (queue, used) in self.queues.iter_mut().zip(&mut self.used) {
            if std::mem::take(used) && queue.needs_notification(self.memory)? {
                self.interrupt.used();
            }
        }
        Ok(true)
    }

    /// Takes the requests that the driver has made available.
    fn take_requests(&mut self, index: usize) -> Result<(), ForwardError> {
        let memory = self.memory;
        if !self.queues[index].ready() {
            return Ok(());
        }
        // No more than a ring: a driver that keeps adding must not keep replies from their turn.
        let size = self.queues[index].size();
        let mut left = size;
        loop {
            self.queues[index].disable_notification(memory)?;
            while let Some(chain) = self.queues[index].iter(memory)?.next() {
                if self.taken[index] == size {
                    return Err(ForwardError::TooMany(size));
                }
                self.taken[index] += 1;
                self.take_request(Waiting { queue: index, head: chain.head_index() })?;
                left -= 1;
                if left == 0 {
                    let _ = self.queue_events[index].write(1);
                    return Ok(());
                }
            }
            if !self.queues[index].enable_notification(memory)? {
                return Ok(());
            }
        }
    }

    fn take_request(&mut self, request: Waiting) -> Result<(), ForwardError> {
        let mut writable = self.spare.pop().unwrap_or_default();
        let header = self.read(&request, &mut writable)?;
        let share = share(request.queue, &header);
        if !self.channel.is_resetting() && self.channel.free_slot().is_some() && self.turns.take(share) {
            return self.send(&request, share, &header, writable);
        }
        self.put_away(writable);
        self.turns.wait(share, request, Instant::now);
        Ok(())
    }

    /// Sends those waiting requests whose turn has come.
    fn start_waiting(&mut self) -> Result<(), ForwardError> {
        while !self.channel.is_resetting() && self.channel.free_slot().is_some() {
            let Some((number, request)) = self.turns.next() else { break };
            let mut writable = self.spare.pop().unwrap_or_default();
            let header = self.read(&request, &mut writable)?;
            if share(request.queue, &header) != number {
                return Err(ForwardError::Changed);
            }
            self.send(&request, number, &header, writable)?;
        }
        Ok(())
    }

    /// Finds a request's buffers and reads its header.
    fn read(
        &mut self,
        request: &Waiting,
        writable: &mut Vec<VolatileSlice<'m>>,
    ) -> Result<[u8; HEADER_SIZE], ForwardError> {
        self.readable.clear();
        let chain = Descriptors::of(self.memory, &self.queues[request.queue], request.head);
        let chain = chain.into_iter().flatten();
        buffers::collect_request(self.memory, chain, MAX_DESCRIPTORS, &mut self.readable, writable)?;
        let (length, room) = (buffers::total(&self.readable), buffers::total(writable));
        let mut header = [0; HEADER_SIZE];
        if buffers::copy_out(&self.readable, &mut header) < HEADER_SIZE
            || length > MAX_MESSAGE
            || room > MAX_MESSAGE
        {
            return Err(ForwardError::Size { request: length, room });
        }
        Ok(header)
    }

    /// Gives the request that was read last to the server.
    fn send(
        &mut self,
        request: &Waiting,
        share: u32,
        header: &[u8; HEADER_SIZE],
        writable: Vec<VolatileSlice<'m>>,
    ) -> Result<(), ForwardError> {
        let Some(slot) = self.channel.free_slot() else { return Ok(()) };
        let target = self.channel.slot(slot);
        let length = buffers::copy_between(&self.readable, &[target]);
        // The header is copied as it was checked, whatever the guest has written meanwhile.
        target.copy_from(header);
        let room = buffers::total(&writable);
        self.in_flight[slot] = Some(InFlight { queue: request.queue, head: request.head, share, writable });
        Ok(self.channel.send(slot, length, room)?)
    }

    fn take_replies(&mut self) -> Result<(), ForwardError> {
        let Self { channel, in_flight, queues, taken, used, turns, spare, memory, .. } = self;
        channel.receive(|channel, notification| {
            let (slot, length) = match notification {
                Notification::Replied { slot, length } | Notification::Malformed { slot, length } => {
                    (slot, length)
                }
                Notification::Reset => return Ok(()),
            };
            // Requests from before the last reset are not answered any more.
            let Some(mut request) = in_flight[slot].take() else { return Ok(()) };
            if matches!(notification, Notification::Malformed { .. }) {
                return Err(ForwardError::Malformed(reason(channel, slot, length)));
            }
            if let Ok(reply) = channel.slot(slot).subslice(0, length) {
                buffers::copy_between(&[reply], &request.writable);
            }
            // A message is far shorter than 4 GiB.
            queues[request.queue].add_used(*memory, request.head, length as u32)?;
            taken[request.queue] -= 1;
            used[request.queue] = true;
            turns.done(request.share, Instant::now);
            request.writable.clear();
            spare.push(request.writable);
            Ok(())
        })
    }

    /// Answers a request with an error instead of sending it to the server.
    fn refuse(&mut self, request: Waiting) -> Result<(), ForwardError> {
        let mut writable = self.spare.pop().unwrap_or_default();
        let header = self.read(&request, &mut writable)?;
        let mut reply = [0; REPLY_HEADER_SIZE];
        reply[..4].copy_from_slice(&(REPLY_HEADER_SIZE as u32).to_le_bytes());
        reply[4..8].copy_from_slice(&(-libc::EBUSY).to_le_bytes());
        reply[8..].copy_from_slice(&header[8..16]);
        let length = REPLY_HEADER_SIZE.min(buffers::total(&writable));
        buffers::copy_in(&writable, &reply[..length]);
        self.put_away(writable);
        self.queues[request.queue].add_used(self.memory, request.head, length as u32)?;
        self.taken[request.queue] -= 1;
        self.used[request.queue] = true;
        Ok(())
    }

    fn put_away(&mut self, mut list: Vec<VolatileSlice<'m>>) {
        list.clear();
        self.spare.push(list);
    }
}

/// The share whose turn a request takes: that of the node that it is about.
fn share(queue: usize, header: &[u8; HEADER_SIZE]) -> u32 {
    if queue == FORGET_QUEUE {
        return FORGETS;
    }
    let mut node = [0; 8];
    node.copy_from_slice(&header[16..24]);
    share_of(u64::from_le_bytes(node))
}

/// The server's text in a form that can be shown to a person.
fn reason(channel: &DeviceEnd, slot: usize, length: usize) -> String {
    let mut text = [0; REASON_LIMIT];
    let length = buffers::copy_out(&[channel.slot(slot)], &mut text[..length.min(REASON_LIMIT)]);
    text[..length]
        .iter()
        .map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '?' })
        .collect()
}

/// An epoll instance with all events that the thread waits for.
///
/// # Errors
/// epoll_create1(2)'s and epoll_ctl(2)'s.
pub fn watch(queue_events: &[EventFd], channel: &DeviceEnd, stop: &EventFd) -> nix::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (event, token) in queue_events.iter().zip(0..).chain([(stop, STOP)]) {
        // SAFETY: the descriptor is open for the duration of the call.
        let event = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
        // Each write is an edge. So nobody has to read the counter, which would take 2^64 notifications to be full.
        epoll.add(event, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token))?;
    }
    epoll.add(channel.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, REPLIES))?;
    Ok(epoll)
}
