//! The agent's side of the protocol, by the script: it answers each request as the script says, and otherwise as the real agent
//! would. Nothing is parsed but what is needed for that: postcard puts the kind of a message first, and then mostly the
//! container's ID.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::cases;
use crate::cpu;
use crate::entry;
use crate::script::{Action, Kind, Script, Target, at};
use crate::vsock::{Header, Stream, Vsock, op};

/// Port of the agent here, and of what hears that it listens there.
const AGENT_PORT: u32 = 1;
const READY_PORT: u32 = 1;
/// Where the report that the agent listens comes from.
const READY_FROM: u32 = 5000;

/// Purposes of connections, by their numbers on the wire.
mod purpose {
    pub const CONTROL: u8 = 0;
    pub const PROCESS: u8 = 1;
    pub const STREAM: u8 = 2;
    pub const EVENTS: u8 = 3;
    pub const SOCKET: u8 = 5;
}

/// Requests, by their numbers on the wire.
mod request {
    pub const CREATE: u8 = 0;
    pub const START: u8 = 1;
    pub const SIGNAL: u8 = 2;
    pub const STATE: u8 = 3;
    pub const DELETE: u8 = 4;
    /// The last that is about one container.
    pub const UPDATE: u8 = 10;
}

/// The number of standard output among a process's streams.
const STDOUT: u8 = 1;

struct Connection {
    stream: Stream,
    inbox: Vec<u8>,
    /// `None` before the hello.
    purpose: Option<u8>,
    /// Whose it is; of a control connection, whom its last request was about.
    container: Vec<u8>,
    /// Of a stream connection.
    number: u8,
    todo: VecDeque<Action>,
    /// What the first of `todo` has done: repetitions, and bytes of the current one.
    done: (u32, usize),
    due: u64,
}

impl Connection {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            inbox: Vec::new(),
            purpose: None,
            container: Vec::new(),
            number: 0,
            todo: VecDeque::new(),
            done: (0, 0),
            due: 0,
        }
    }

    fn is(&self, purpose: u8, container: &[u8]) -> bool {
        self.purpose == Some(purpose) && self.container == container
    }

    fn is_stdout(&self, container: &[u8]) -> bool {
        self.is(purpose::STREAM, container) && self.number == STDOUT
    }

    /// The next whole message.
    fn message(&mut self) -> Option<Vec<u8>> {
        let length = u32::from_le_bytes(*self.inbox.first_chunk()?) as usize;
        let message = self.inbox.get(4..4 + length)?.to_vec();
        self.inbox.drain(..4 + length);
        Some(message)
    }
}

pub struct Agent {
    script: Script,
    pub vsock: Vsock,
    connections: Vec<Connection>,
    /// ID and number of the script's answer to "how is it".
    containers: Vec<(Vec<u8>, u8)>,
}

impl Agent {
    pub fn new(script: Script) -> Self {
        let Some(vsock) = Vsock::start() else {
            crate::say!("hostile guest: there is no vsock device");
            cpu::reset()
        };
        Self { script, vsock, connections: Vec::new(), containers: Vec::new() }
    }

    pub fn run(mut self) -> ! {
        let request = self.vsock.header(READY_FROM, READY_PORT, op::REQUEST);
        self.vsock.send(&request, &[]);
        loop {
            let heard = self.listen();
            let acted = self.act();
            if !heard && !acted {
                cpu::nap();
            }
        }
    }

    /// Works off what the host has sent; false if that is nothing.
    pub fn listen(&mut self) -> bool {
        let mut any = false;
        while let Some((header, data)) = self.vsock.receive() {
            any = true;
            self.packet(&header, &data);
        }
        any
    }

    fn packet(&mut self, header: &Header, data: &[u8]) {
        let found = self.connections.iter().position(|connection| {
            (connection.stream.guest_port, connection.stream.host_port) == (header.dst_port, header.src_port)
        });
        let Some(index) = found else { return self.unknown(header) };
        let connection = &mut self.connections[index];
        connection.stream.learn(header, data.len());
        match header.op {
            op::RW => {
                connection.inbox.extend_from_slice(data);
                connection.stream.control(&mut self.vsock, op::CREDIT_UPDATE, 0);
                self.messages(index);
            }
            op::CREDIT_REQUEST => connection.stream.control(&mut self.vsock, op::CREDIT_UPDATE, 0),
            op::SHUTDOWN if header.flags == 3 => {
                connection.stream.control(&mut self.vsock, op::RST, 0);
                self.forget(index);
            }
            op::RST => self.forget(index),
            _ => {}
        }
    }

    fn unknown(&mut self, header: &Header) {
        match header.op {
            op::REQUEST if header.dst_port == AGENT_PORT => {
                let mut connection = Connection::new(Stream::new(header));
                connection.stream.control(&mut self.vsock, op::RESPONSE, 0);
                self.connections.push(connection);
            }
            op::RESPONSE if header.dst_port == READY_FROM => {
                let mut connection = Connection::new(Stream::new(header));
                connection.todo = self.script.actions(at::READY, b"").into();
                connection.purpose = Some(purpose::EVENTS);
                self.connections.push(connection);
            }
            op::RST => {}
            _ => {
                let answer = self.vsock.header(header.dst_port, header.src_port, op::RST);
                self.vsock.send(&answer, &[]);
            }
        }
    }

    /// A connection has ended; a process whose own that was is killed. What the host has asked for, and does not wait for any
    /// more, goes on where it was to happen.
    fn forget(&mut self, index: usize) {
        let Connection { purpose, container, todo, .. } = self.connections.swap_remove(index);
        if purpose == Some(purpose::PROCESS) {
            self.set_state(&container, at::STATE_STOPPED);
        }
        for action in todo {
            let target = self.connections.iter_mut().find(|connection| match action.target {
                Target::Asking => false,
                Target::Process => connection.is(purpose::PROCESS, &container),
                Target::Stdout => connection.is_stdout(&container),
            });
            if let Some(target) = target {
                target.todo.push_back(Action { target: Target::Asking, ..action });
            }
        }
    }

    fn messages(&mut self, index: usize) {
        while let Some(connection) = self.connections.get_mut(index) {
            let (purpose, container) = (connection.purpose, connection.container.clone());
            if matches!(purpose, Some(purpose::STREAM | purpose::EVENTS)) {
                connection.inbox.clear();
            }
            let Some(message) = connection.message() else { return };
            match purpose {
                None => self.hello(index, &message),
                Some(purpose::CONTROL) => self.request(index, &message),
                // The only command that ends with a signal's number: twice that, as postcard writes it.
                Some(purpose::PROCESS) if matches!(message[..], [0, 18 | 30]) => {
                    self.end(&container, at::ENDED_KILLED);
                }
                _ => {}
            }
        }
    }

    fn hello(&mut self, index: usize, message: &[u8]) {
        // The magic, the version (one byte below 128), the purpose.
        let purpose = message.get(5).copied().unwrap_or(0);
        let container = if purpose == purpose::CONTROL { Vec::new() } else { id_at(message, 6) };
        let number = message.last().copied().unwrap_or(0);
        let moment = at::HELLO + purpose;
        let moment = if self.script.mentions(moment, &container) { moment } else { at::WELCOME };
        let connection = &mut self.connections[index];
        connection.purpose = Some(purpose);
        connection.number = number;
        if purpose != purpose::SOCKET {
            connection.todo = self.script.actions(moment, &container).into();
        }
        connection.container = container;
    }

    fn request(&mut self, index: usize, message: &[u8]) {
        let kind = message.first().copied().unwrap_or(0);
        let id = if kind <= request::UPDATE { id_at(message, 1) } else { Vec::new() };
        let state = self.containers.iter().find(|(known, _)| *known == id).map(|(_, state)| *state);
        let is_special = self.script.mentions(kind, &id);
        if kind == request::CREATE {
            cases::before_created(&id);
        }
        let moment = match (kind, state) {
            (request::STATE, Some(state)) if !is_special => state,
            _ => kind,
        };
        let actions = self.script.actions(moment, &id);
        let connection = &mut self.connections[index];
        connection.todo.extend(actions);
        // Whose other connections the actions may be about.
        connection.container.clone_from(&id);
        match kind {
            request::CREATE => self.containers.push((id, at::STATE_CREATED)),
            request::START => {
                self.set_state(&id, at::STATE_RUNNING);
                if !is_special {
                    self.settle(&id);
                    cases::run(self, &id);
                }
            }
            request::SIGNAL if !is_special && is_deadly(message, id.len()) => {
                self.end(&id, at::ENDED_KILLED);
            }
            request::DELETE if !is_special => {
                self.containers.retain(|(known, _)| *known != id);
                for connection in self.connections.iter_mut().filter(|connection| connection.container == id)
                {
                    if connection.purpose != Some(purpose::CONTROL) {
                        connection.todo.push_back(CLOSE);
                    }
                }
            }
            _ => {}
        }
    }

    fn set_state(&mut self, id: &[u8], state: u8) {
        if let Some(entry) = self.containers.iter_mut().find(|(known, _)| known == id) {
            entry.1 = state;
        }
    }

    /// The container's process ends so.
    pub fn end(&mut self, id: &[u8], how: u8) {
        self.set_state(id, at::STATE_STOPPED);
        let ended = self.script.actions(how, id);
        for connection in &mut self.connections {
            if connection.is(purpose::STREAM, id) {
                connection.todo.push_back(CLOSE);
            } else if connection.is(purpose::PROCESS, id) {
                connection.todo.extend(ended.iter().copied());
            }
        }
    }

    /// Does what is to be done on a container's behalf, and what is waiting anyway, until nothing is.
    fn settle(&mut self, id: &[u8]) {
        while self.act() || self.connections.iter().any(|c| !c.todo.is_empty() && c.container == id) {
            self.listen();
        }
    }

    /// Writes to the container's standard output.
    pub fn print(&mut self, id: &[u8], text: &str) {
        let mut rest = text.as_bytes();
        let end = cpu::in_ms(10_000);
        while !rest.is_empty() && cpu::now() < end {
            let Some(connection) = self.connections.iter_mut().find(|c| c.is_stdout(id)) else { return };
            let sent = connection.stream.send(&mut self.vsock, rest);
            rest = &rest[sent..];
            if sent == 0 && !self.listen() {
                cpu::nap();
            }
        }
    }

    /// Takes a step on every connection that has something to do; false if none could.
    pub fn act(&mut self) -> bool {
        let mut any = false;
        let mut index = 0;
        while index < self.connections.len() {
            any |= self.step(index);
            index += 1;
        }
        any
    }

    fn step(&mut self, index: usize) -> bool {
        let connection = &mut self.connections[index];
        let Some(action) = connection.todo.front().copied() else { return false };
        if cpu::now() < connection.due {
            return false;
        }
        let container = connection.container.clone();
        let target = match action.target {
            Target::Asking => Some(index),
            Target::Process => self.connections.iter().position(|c| c.is(purpose::PROCESS, &container)),
            Target::Stdout => self.connections.iter().position(|c| c.is_stdout(&container)),
        };
        let finished = match (target, action.kind) {
            (None, _) => true,
            (Some(target), Kind::Send | Kind::Drip) => return self.send(index, target, &action),
            (Some(target), Kind::Close) => {
                self.connections[target].stream.control(&mut self.vsock, op::SHUTDOWN, 3);
                true
            }
            (Some(target), Kind::Reset) => {
                self.connections[target].stream.control(&mut self.vsock, op::RST, 0);
                self.connections[target].stream.open = false;
                true
            }
            (_, Kind::Wait) => {
                self.connections[index].due = cpu::in_ms(action.a.into());
                true
            }
            (_, Kind::Connect) => {
                for port in 0..action.a {
                    let request = self.vsock.header(10_000 + port, action.b, op::REQUEST);
                    self.vsock.send(&request, &[]);
                    // The refusals.
                    while self.vsock.receive().is_some() {}
                }
                true
            }
            (_, Kind::Console) => {
                let line = vec![b'x'; 255];
                for _ in 0..action.a / 256 {
                    cpu::out_string(0x3f8, &line);
                    cpu::out8(0x3f8, b'\n');
                }
                true
            }
            (_, Kind::Crash) => entry::triple_fault(),
            (_, Kind::Halt) => cpu::halt(),
            (_, Kind::End) => {
                self.set_state(&container, at::STATE_STOPPED);
                true
            }
        };
        if finished && let Some(connection) = self.connections.get_mut(index) {
            connection.todo.pop_front();
            connection.done = (0, 0);
        }
        finished
    }

    /// A piece of what the first action of the connection at `index` sends.
    fn send(&mut self, index: usize, target: usize, action: &Action) -> bool {
        let (mut rounds, mut offset) = self.connections[index].done;
        let drips = action.kind == Kind::Drip;
        let rest = action.bytes.get(offset..).unwrap_or_default();
        let piece = if drips { rest.get(..1).unwrap_or_default() } else { rest };
        let sent = self.connections[target].stream.send(&mut self.vsock, piece);
        offset += sent;
        let pause = if drips { action.a } else { action.b };
        let connection = &mut self.connections[index];
        if drips {
            connection.due = cpu::in_ms(pause.into());
        }
        if offset == action.bytes.len() {
            (rounds, offset) = (rounds + 1, 0);
            if !drips && pause > 0 {
                connection.due = cpu::in_ms(pause.into());
            }
        }
        connection.done = (rounds, offset);
        if rounds >= if drips { 1 } else { action.a } {
            connection.todo.pop_front();
            connection.done = (0, 0);
        }
        sent > 0
    }
}

const CLOSE: Action = Action { kind: Kind::Close, target: Target::Asking, a: 0, b: 0, bytes: &[] };

/// The string at this place of a message; IDs are shorter than 128 bytes.
fn id_at(message: &[u8], at: usize) -> Vec<u8> {
    let length = message.get(at).copied().unwrap_or(0) as usize;
    message.get(at + 1..at + 1 + length).unwrap_or_default().to_vec()
}

/// Whether a request sends SIGKILL or SIGTERM: after the container, twice the number.
fn is_deadly(message: &[u8], id_length: usize) -> bool {
    matches!(message.get(2 + id_length), Some(18 | 30))
}
