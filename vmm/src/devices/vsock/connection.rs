//! One connection: a UNIX stream socket on one side, a vsock stream of the guest on the other.
//!
//! ```text
//!   accepted on the listener           guest's REQUEST to the ready port
//!         │ REQUEST →                          │ RESPONSE →
//!         ▼              ← RESPONSE            ▼
//!     Requested ─────────────────────────▶ Established ── both directions over: SHUTDOWN(both) → ──▶ over
//!         │                                    │
//!         │ ← RST                              │ ← RST, ← SHUTDOWN(both): RST →, broken rules: RST →
//!         ▼                                    ▼
//!        over ◀──── backlog written ─────── Detached
//! ```
//!
//! In `Detached` the guest has no such connection any more, but what it sent before still goes to the host's side.
//!
//! While established, the directions end one by one:
//!
//! | direction | ends by | then the other side hears |
//! |---|---|---|
//! | to the guest | end of file on the socket | SHUTDOWN(SEND) |
//! | to the guest | SHUTDOWN(RCV) from the guest | EPIPE |
//! | to the host | SHUTDOWN(SEND) from the guest, and the backlog is written | end of file |
//! | to the host | the socket is closed or no longer read | SHUTDOWN(RCV) |
//!
//! The socket is watched edge-triggered: `readable` remembers an edge until the socket has been read empty, so that a
//! guest without credit or buffers costs no wake-ups. EPOLLOUT is asked for only while there is a backlog.

use std::{
    collections::VecDeque,
    io::ErrorKind,
    net::Shutdown,
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, send},
};
use vm_memory::VolatileSlice;
use vmm_sys_util::epoll::EventSet;

use super::{
    credit::Credit,
    packet::{Header, op, shutdown},
    socket,
};
use crate::virtio::buffers;

/// Largest number of receive buffers of the guest that one read fills.
const MAX_BURST: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The guest has not answered yet.
    Requested,
    /// Bytes flow in both directions.
    Established,
    /// The guest's side is gone.
    Detached,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ToHost {
    /// The guest may send.
    Open,
    /// The guest has sent its last byte; the backlog still has to be written.
    Ending,
    /// All bytes are written, or nobody reads them.
    Over,
}

/// A packet without data that the guest should get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The operation, one of [`op`].
    pub op: u16,
    /// Flags of [`op::SHUTDOWN`].
    pub flags: u32,
}

/// The state of one connection. It does not know its ports: they are its key in the muxer.
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    phase: Phase,
    credit: Credit,
    /// Bytes of the guest that the socket did not take at once; never more than the credit's window.
    backlog: VecDeque<u8>,
    to_host: ToHost,
    to_guest_over: bool,
    /// Whether the socket may have bytes to read.
    readable: bool,
    /// Whether the other side of the socket is closed: no more bytes will come than can be read now.
    hung_up: bool,
    /// Number of receive buffers that the next read may fill; it grows while reads fill all of them.
    burst: usize,
    /// Directions that the guest itself has shut down.
    shut_by_guest: u32,
    /// Directions of whose end the guest was told.
    told: u32,
    owes_request: bool,
    owes_response: bool,
    owes_reset: bool,
    owes_credit_update: bool,
    credit_request: CreditRequest,
}

/// A request for credit, which is sent once each time that the credit runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CreditRequest {
    Idle,
    Owed,
    Sent,
}

impl Connection {
    /// A connection that the host asks for. `window` is the largest number of bytes from the guest that are kept.
    pub fn request(socket: UnixStream, window: u32) -> Self {
        let mut connection = Self::new(socket, Phase::Requested, window);
        connection.owes_request = true;
        connection
    }

    /// A connection that the guest asks for, and that is accepted.
    pub fn accept(socket: UnixStream, window: u32, request: &Header) -> Self {
        let mut connection = Self::new(socket, Phase::Established, window);
        connection.owes_response = true;
        connection.credit.learn(request.buf_alloc, request.fwd_cnt);
        connection
    }

    fn new(socket: UnixStream, phase: Phase, window: u32) -> Self {
        Self {
            socket,
            phase,
            credit: Credit::new(window),
            backlog: VecDeque::new(),
            to_host: ToHost::Open,
            to_guest_over: false,
            readable: false,
            hung_up: false,
            burst: 1,
            shut_by_guest: 0,
            told: 0,
            owes_request: false,
            owes_response: false,
            owes_reset: false,
            owes_credit_update: false,
            credit_request: CreditRequest::Idle,
        }
    }

    /// The descriptor of the socket, to watch it.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// The events to watch the socket for; `None` while the guest has not accepted the connection.
    pub fn interest(&self) -> Option<EventSet> {
        let events = EventSet::IN | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        match self.phase {
            Phase::Requested => None,
            _ if self.backlog.is_empty() => Some(events),
            _ => Some(events | EventSet::OUT),
        }
    }

    /// True when nothing is left to do in either direction: drop it.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Detached && !self.owes_reset && self.backlog.is_empty()
    }

    /// True when the guest does not have this connection any more.
    pub fn is_detached(&self) -> bool {
        self.phase == Phase::Detached
    }

    /// Handles a packet from the guest; `data` is the `header.len` bytes after its header.
    pub fn handle(&mut self, header: &Header, data: &mut [VolatileSlice<'_>]) {
        self.credit.learn(header.buf_alloc, header.fwd_cnt);
        if self.credit.allowance() > 0 {
            self.credit_request = CreditRequest::Idle;
        }
        match (self.phase, header.op) {
            (_, op::RST) => self.detach(),
            (Phase::Requested, op::RESPONSE) => self.phase = Phase::Established,
            (Phase::Established, op::RW) => self.take(header.len, data),
            (Phase::Established, op::SHUTDOWN) => self.shut(header.flags),
            (Phase::Established, op::CREDIT_UPDATE) => {}
            (Phase::Established, op::CREDIT_REQUEST) => self.owes_credit_update = true,
            _ => self.reset(),
        }
    }

    /// Handles an event of the socket.
    pub fn on_event(&mut self, events: EventSet) {
        if events.intersects(EventSet::IN | EventSet::READ_HANG_UP | EventSet::HANG_UP | EventSet::ERROR) {
            self.readable = true;
        }
        if events.intersects(EventSet::HANG_UP | EventSet::ERROR) {
            self.hung_up = true;
            self.host_reads_no_more();
        } else if events.contains(EventSet::OUT) {
            self.flush();
        }
    }

    /// The next packet without data for the guest.
    pub fn next_control(&mut self) -> Option<Control> {
        if std::mem::take(&mut self.owes_request) {
            return Some(Control { op: op::REQUEST, flags: 0 });
        }
        if std::mem::take(&mut self.owes_response) {
            return Some(Control { op: op::RESPONSE, flags: 0 });
        }
        if std::mem::take(&mut self.owes_reset) {
            return Some(Control { op: op::RST, flags: 0 });
        }
        if self.phase != Phase::Established {
            return None;
        }
        if self.owes_shutdown() {
            let flags = self.ended();
            self.told = flags;
            if flags == shutdown::BOTH {
                self.detach();
            }
            return Some(Control { op: op::SHUTDOWN, flags });
        }
        if std::mem::take(&mut self.owes_credit_update) {
            return Some(Control { op: op::CREDIT_UPDATE, flags: 0 });
        }
        if self.credit_request == CreditRequest::Owed {
            self.credit_request = CreditRequest::Sent;
            return Some(Control { op: op::CREDIT_REQUEST, flags: 0 });
        }
        None
    }

    /// True when [`Self::next_control`] would return a packet.
    pub fn owes_control(&self) -> bool {
        self.owes_request
            || self.owes_response
            || self.owes_reset
            || (self.phase == Phase::Established
                && (self.owes_shutdown()
                    || self.owes_credit_update
                    || self.credit_request == CreditRequest::Owed))
    }

    /// True when a read from the socket may give bytes that the guest can take.
    pub fn may_receive(&self) -> bool {
        self.phase == Phase::Established
            && self.readable
            && !self.to_guest_over
            && self.credit.allowance() > 0
    }

    /// Number of bytes, and of receive buffers, that the next read may fill.
    pub fn budget(&self) -> (u32, usize) {
        (self.credit.allowance(), self.burst)
    }

    /// Reads from the socket into receive buffers, which are within [`Self::budget`], and returns the number of bytes;
    /// 0 if there are none now, or if no more will come.
    pub fn receive(&mut self, data: &[VolatileSlice<'_>]) -> u32 {
        match socket::receive(&self.socket, data) {
            Ok(0) => {
                self.to_guest_over = true;
                0
            }
            Ok(count) => {
                let room: usize = data.iter().map(VolatileSlice::len).sum();
                self.burst = if count == room { (self.burst * 2).min(MAX_BURST) } else { 1 };
                // No more than the allowance, a u32, has been asked for.
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                self.credit.spend(count);
                self.ask_for_credit();
                count
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                0
            }
            Err(_) => {
                // The peer died with unread bytes: its side is gone in both directions.
                self.to_guest_over = true;
                self.host_reads_no_more();
                0
            }
        }
    }

    /// Ends the connection: the host's side sees the end of file, the guest a reset.
    pub fn abandon(&mut self) {
        self.host_reads_no_more();
        self.reset();
    }

    /// `buf_alloc` and `fwd_cnt` for a packet to the guest.
    pub fn announce(&mut self) -> (u32, u32) {
        self.owes_credit_update = false;
        self.credit.announce()
    }

    /// Writes bytes from the guest to the socket, and puts those that it does not take into the backlog.
    fn take(&mut self, count: u32, mut data: &mut [VolatileSlice<'_>]) {
        if self.shut_by_guest & shutdown::SEND != 0 || self.credit.receive(count).is_err() {
            return self.reset();
        }
        let mut left = count;
        while left > 0 && self.to_host == ToHost::Open && self.backlog.is_empty() {
            match socket::send(&self.socket, data) {
                Ok(sent) => {
                    data = buffers::skip(data, sent);
                    // No more than `count`, a u32, can be sent.
                    let sent = u32::try_from(sent).unwrap_or(left);
                    self.credit.forward(sent);
                    left = left.saturating_sub(sent);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.host_reads_no_more(),
            }
        }
        if self.to_host == ToHost::Over {
            self.credit.forward(left);
        } else if left > 0 {
            // Credit limits the bytes that come. The backlog is allocated once, so it takes no more memory than that.
            self.backlog.reserve_exact(self.credit.window() as usize - self.backlog.len());
            keep(&mut self.backlog, data);
        }
        self.owes_credit_update |= self.credit.is_update_due();
    }

    /// Writes the backlog until the socket takes no more.
    fn flush(&mut self) {
        while !self.backlog.is_empty() {
            let (front, _) = self.backlog.as_slices();
            match send(self.fd(), front, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => {
                    self.backlog.drain(..sent);
                    self.credit.forward(u32::try_from(sent).unwrap_or(u32::MAX));
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => return self.host_reads_no_more(),
            }
        }
        self.owes_credit_update |= self.credit.is_update_due();
        if self.backlog.is_empty() {
            self.backlog = VecDeque::new();
            self.end_to_host();
        }
    }

    /// Shuts down the socket for writing if the guest has sent its last byte and all bytes are written.
    fn end_to_host(&mut self) {
        if self.to_host == ToHost::Ending && self.backlog.is_empty() {
            let _ = self.socket.shutdown(Shutdown::Write);
            self.to_host = ToHost::Over;
        }
    }

    /// Handles a socket whose other side is closed or shut down for reading.
    fn host_reads_no_more(&mut self) {
        self.credit.forward(u32::try_from(self.backlog.len()).unwrap_or(u32::MAX));
        self.backlog = VecDeque::new();
        self.to_host = ToHost::Over;
    }

    /// Handles a SHUTDOWN of the guest, for one direction or both.
    fn shut(&mut self, flags: u32) {
        self.shut_by_guest |= flags & shutdown::BOTH;
        if self.shut_by_guest == shutdown::BOTH {
            // The guest waits for this before it frees the port. All its bytes have come before.
            self.owes_reset = true;
            return self.detach();
        }
        if self.shut_by_guest & shutdown::RCV != 0 {
            let _ = self.socket.shutdown(Shutdown::Read);
            self.to_guest_over = true;
        }
        if self.shut_by_guest & shutdown::SEND != 0 && self.to_host == ToHost::Open {
            self.to_host = ToHost::Ending;
            self.end_to_host();
        }
    }

    /// Resets the connection because the guest has broken the rules.
    fn reset(&mut self) {
        self.owes_reset = true;
        self.detach();
    }

    fn detach(&mut self) {
        self.phase = Phase::Detached;
        self.to_guest_over = true;
        self.owes_request = false;
        self.owes_response = false;
    }

    /// Directions that are over, as flags of a SHUTDOWN to the guest.
    fn ended(&self) -> u32 {
        let send = if self.to_guest_over { shutdown::SEND } else { 0 };
        let receive = if self.to_host == ToHost::Over { shutdown::RCV } else { 0 };
        send | receive
    }

    /// True when the guest has not been told of a direction's end yet, or when both directions have ended.
    fn owes_shutdown(&self) -> bool {
        if self.hung_up && self.may_receive() {
            // The last bytes are sent first; then one packet tells both ends.
            return false;
        }
        let ended = self.ended();
        // What the guest does not send, we do not receive.
        let from_guest = match self.shut_by_guest {
            shutdown::SEND => shutdown::RCV,
            shutdown::RCV => shutdown::SEND,
            _ => 0,
        };
        ended == shutdown::BOTH || ended & !(self.told | from_guest) != 0
    }

    fn ask_for_credit(&mut self) {
        if self.credit.allowance() == 0 && self.credit_request == CreditRequest::Idle {
            self.credit_request = CreditRequest::Owed;
        }
    }
}

impl Drop for Connection {
    /// A UNIX socket that is closed with bytes unread gives its peer ECONNRESET after the last byte. The peer of a
    /// process that has ended in order should see the end of file.
    fn drop(&mut self) {
        if self.shut_by_guest == shutdown::BOTH && self.socket.shutdown(Shutdown::Both).is_ok() {
            let mut unread = [0; 4096];
            while matches!(recv(self.fd(), &mut unread, MsgFlags::MSG_DONTWAIT), Ok(1..)) {}
        }
    }
}

fn keep(backlog: &mut VecDeque<u8>, data: &[VolatileSlice<'_>]) {
    let mut chunk = [0; 4096];
    for slice in data {
        let mut rest = *slice;
        loop {
            let count = rest.copy_to(&mut chunk);
            backlog.extend(&chunk[..count]);
            match rest.offset(count) {
                Ok(tail) if !tail.is_empty() => rest = tail,
                _ => break,
            }
        }
    }
}
