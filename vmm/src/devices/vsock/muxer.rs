//! All connections: their list, the connection of a packet, and the order of their turns.
//!
//! What the guest can make the host keep is bounded: connections by [`MAX_CONNECTIONS`], their bytes by their windows,
//! refusals of packets that belong to no connection by [`MAX_REFUSALS`]. Beyond these limits, the guest gets nothing.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::{fd::AsRawFd, unix::net::UnixStream},
};

use stockade_protocol::{
    agent::{AGENT_PORT, READY_PORT},
    renewal,
};
use vm_memory::{GuestMemoryMmap, VolatileSlice};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::{
    Endpoints,
    connection::Connection,
    packet::{HOST_CID, Header, TYPE_STREAM, op},
    queues::{Burst, QueueError, RxQueue},
};

/// Largest number of connections at a time; more wait in the listener's backlog.
pub const MAX_CONNECTIONS: usize = 1024;

/// Largest number of bytes from the guest that are kept for one connection: Linux's own default, which it never
/// exceeds.
const WINDOW: u32 = 256 << 10;

/// As [`WINDOW`], for connections that are made while [`WIDE_CONNECTIONS`] others are open, so that a guest whose peers
/// do not read takes at most 31 MiB.
const NARROW_WINDOW: u32 = 16 << 10;

/// Number of connections that get the whole [`WINDOW`].
const WIDE_CONNECTIONS: usize = 64;

/// Largest number of refusals that wait for receive buffers.
const MAX_REFUSALS: usize = 256;

/// First port for the host's end of a connection; the ports below are well-known ones.
const FIRST_PORT: u32 = 1024;

/// Ports of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ports {
    host: u32,
    guest: u32,
}

impl Ports {
    /// The value by which epoll identifies a connection's socket. The host's port is never 0, so the values below 2^32
    /// are free.
    fn token(self) -> u64 {
        u64::from(self.host) << 32 | u64::from(self.guest)
    }

    fn of_token(token: u64) -> Self {
        Self { host: (token >> 32) as u32, guest: token as u32 }
    }
}

/// A connection, and whether it is watched and queued.
struct Entry {
    connection: Connection,
    /// The events for which epoll watches its socket.
    watched: Option<EventSet>,
    /// Whether it is in [`Muxer::turns`].
    queued: bool,
}

/// The connections of one active device.
pub struct Muxer {
    guest_cid: u64,
    epoll: Epoll,
    listener_token: u64,
    endpoints: Endpoints,
    entries: HashMap<Ports, Entry>,
    /// Connections that have packets for the guest, in the order of their turns.
    turns: VecDeque<Ports>,
    refusals: VecDeque<Header>,
    next_port: u32,
    agent_connected: bool,
    /// Whether the listener has failed (for example without free descriptors); the next event of any kind tries again.
    listener_stalled: bool,
    listener_watched: bool,
}

impl Muxer {
    /// A muxer without connections. `epoll` identifies the listener by `listener_token`, and connections by values from
    /// 2^32 on.
    pub fn new(guest_cid: u64, epoll: Epoll, listener_token: u64, endpoints: Endpoints) -> Self {
        Self {
            guest_cid,
            epoll,
            listener_token,
            endpoints,
            entries: HashMap::new(),
            turns: VecDeque::new(),
            refusals: VecDeque::new(),
            next_port: FIRST_PORT,
            agent_connected: false,
            listener_stalled: false,
            listener_watched: false,
        }
    }

    /// The epoll instance that watches the listener and the connections' sockets.
    pub fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    /// Drops all connections and returns the host's sockets.
    pub fn into_endpoints(self) -> Endpoints {
        self.endpoints
    }

    /// Handles a packet from the guest; `data` is the `header.len` bytes after its header.
    pub fn handle(&mut self, header: &Header, data: &mut [VolatileSlice<'_>]) {
        if header.src_cid != self.guest_cid {
            // An answer would reach nobody.
            return;
        }
        let ports = Ports { host: header.dst_port, guest: header.src_port };
        let known = header.dst_cid == HOST_CID && header.socket_type == TYPE_STREAM;
        match self.entries.get_mut(&ports) {
            Some(entry) if known && !entry.connection.is_detached() => {
                entry.connection.handle(header, data);
                self.settle(ports);
            }
            None if known && header.op == op::REQUEST && header.dst_port == READY_PORT => {
                self.accept_ready(ports, header);
            }
            _ => self.refuse(header),
        }
    }

    /// Handles an event of the connection's socket with this token.
    pub fn on_event(&mut self, token: u64, events: EventSet) {
        self.listener_stalled = false;
        let ports = Ports::of_token(token);
        if let Some(entry) = self.entries.get_mut(&ports) {
            entry.connection.on_event(events);
            self.settle(ports);
        }
    }

    /// Accepts a connection from the host's side.
    pub fn on_listener(&mut self) {
        match self.endpoints.listener.accept().and_then(|(socket, _)| nonblocking(socket)) {
            Ok(socket) => {
                let ports = Ports { host: self.free_port(), guest: AGENT_PORT };
                self.enter(ports, Connection::request(socket, self.window()));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.listener_stalled = true,
        }
    }

    /// Watches the listener while there is an agent and room for a connection. Otherwise clients wait in its backlog.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn watch_listener(&mut self) -> io::Result<()> {
        let wanted = self.agent_connected && !self.listener_stalled && self.entries.len() < MAX_CONNECTIONS;
        if wanted != self.listener_watched {
            let operation = if wanted { ControlOperation::Add } else { ControlOperation::Delete };
            self.epoll.ctl(
                operation,
                self.endpoints.listener.as_raw_fd(),
                EpollEvent::new(EventSet::IN, self.listener_token),
            )?;
            self.listener_watched = wanted;
        }
        Ok(())
    }

    /// Whether there is neither a connection nor a refusal to send.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.refusals.is_empty()
    }

    /// Connects the renewal socket to the agent of a template's guest, which waits for that.
    pub fn renew(&mut self) {
        if let Some(Ok(socket)) = self.endpoints.renewal.take().map(nonblocking) {
            let ports = Ports { host: self.free_port(), guest: renewal::PORT };
            self.enter(ports, Connection::request(socket, self.window()));
        }
    }

    /// True when there are packets for the guest.
    pub fn has_output(&self) -> bool {
        !self.refusals.is_empty() || !self.turns.is_empty()
    }

    /// Sends the next packets to the guest: a refusal, a packet without data, or a burst of data. There must be at
    /// least one receive buffer.
    ///
    /// # Errors
    /// The driver has broken the rules of the rx queue.
    pub fn send_next<'m>(
        &mut self,
        memory: &'m GuestMemoryMmap,
        rx: &mut RxQueue,
        burst: &mut Burst<'m>,
    ) -> Result<(), QueueError> {
        if let Some(header) = self.refusals.pop_front() {
            rx.send(memory, burst, &header)?;
            return Ok(());
        }
        let Some(ports) = self.turns.pop_front() else { return Ok(()) };
        let Some(entry) = self.entries.get_mut(&ports) else { return Ok(()) };
        entry.queued = false;
        let connection = &mut entry.connection;
        let template = Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: ports.host,
            dst_port: ports.guest,
            socket_type: TYPE_STREAM,
            ..Header::default()
        };
        if let Some(control) = connection.next_control() {
            let (buf_alloc, fwd_cnt) = connection.announce();
            let header = Header { op: control.op, flags: control.flags, buf_alloc, fwd_cnt, ..template };
            rx.send(memory, burst, &header)?;
        } else if connection.may_receive() {
            let (buf_alloc, fwd_cnt) = connection.announce();
            rx.send_data(
                memory,
                burst,
                connection.budget(),
                |data| connection.receive(data),
                |len| Header { op: op::RW, len, buf_alloc, fwd_cnt, ..template },
            )?;
        }
        self.settle(ports);
        Ok(())
    }

    /// Accepts the agent's "ready" connection.
    fn accept_ready(&mut self, ports: Ports, header: &Header) {
        let Some(ready) = self.endpoints.ready.take() else { return self.refuse(header) };
        self.agent_connected = true;
        (ready.on_connect)();
        match nonblocking(ready.socket) {
            Ok(socket) => self.enter(ports, Connection::accept(socket, WINDOW, header)),
            Err(_) => self.refuse(header),
        }
    }

    fn enter(&mut self, ports: Ports, connection: Connection) {
        self.entries.insert(ports, Entry { connection, watched: None, queued: false });
        self.settle(ports);
    }

    /// Updates the muxer for a connection's state: whether it is watched, whether it has a turn, and whether it still
    /// exists.
    fn settle(&mut self, ports: Ports) {
        let Some(entry) = self.entries.get_mut(&ports) else { return };
        let connection = &entry.connection;
        let fd = connection.fd();
        let wanted = if connection.is_over() { None } else { connection.interest() };
        if wanted != entry.watched {
            let (operation, events) = match (entry.watched, wanted) {
                (None, Some(events)) => (ControlOperation::Add, events),
                (_, Some(events)) => (ControlOperation::Modify, events),
                (_, None) => (ControlOperation::Delete, EventSet::empty()),
            };
            let result = self.epoll.ctl(operation, fd, EpollEvent::new(events, ports.token()));
            if result.is_err() && wanted.is_some() {
                // Without events the connection would hang: both sides see it end instead.
                entry.connection.abandon();
            }
            entry.watched = wanted;
        }
        if entry.connection.is_over() {
            if entry.queued {
                self.turns.retain(|turn| *turn != ports);
            }
            self.entries.remove(&ports);
            self.listener_stalled = false;
        } else if !entry.queued && (entry.connection.owes_control() || entry.connection.may_receive()) {
            entry.queued = true;
            self.turns.push_back(ports);
        }
    }

    /// Answers a packet that belongs to no connection.
    fn refuse(&mut self, header: &Header) {
        if header.op != op::RST && self.refusals.len() < MAX_REFUSALS {
            self.refusals.push_back(header.refusal());
        }
    }

    fn window(&self) -> u32 {
        if self.entries.len() < WIDE_CONNECTIONS { WINDOW } else { NARROW_WINDOW }
    }

    /// A port of the host that no connection uses; there are far more ports than connections.
    fn free_port(&mut self) -> u32 {
        loop {
            let host = self.next_port;
            self.next_port = host.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.entries.contains_key(&Ports { host, guest: AGENT_PORT }) {
                return host;
            }
        }
    }
}

fn nonblocking(socket: UnixStream) -> io::Result<UnixStream> {
    socket.set_nonblocking(true)?;
    Ok(socket)
}
