//! A connection of the host that carries messages: Control or Process, or a connection without a hello yet.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
    unistd::{read, write},
};
use serde::{Serialize, de::DeserializeOwned};
use stockade_protocol::{
    agent::ProcessId,
    frame::{self, FrameBuffer, HOST_LIMIT},
};

/// If more bytes than this wait for the host, messages that may be lost are dropped.
const CONGESTED: usize = 64 << 10;

/// Number of bytes that are read at a time.
const CHUNK: usize = 16 << 10;

/// The purpose of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The hello has not come yet.
    Greeting,
    /// Requests, one at a time.
    Control {
        /// Whether a request waits for its response.
        busy: bool,
    },
    /// The connection stands for this process.
    Process(Rc<ProcessId>),
    /// The connection gets the events of this init's container.
    Events(Rc<ProcessId>),
    /// The connection waits for a client of the socket with this number, of this init's container.
    Waiting(Rc<ProcessId>, u16),
    /// The connection waits for a query to the host's resolver.
    WaitingForQuery,
}

/// An error: the connection has ended or failed, or has carried something that is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// A non-blocking connection.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    inbox: FrameBuffer,
    outbox: Vec<u8>,
    ended: bool,
    /// What it is for.
    pub role: Role,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Connection {
    /// A new connection.
    pub fn new(socket: OwnedFd) -> Self {
        let inbox = FrameBuffer::new(HOST_LIMIT);
        Self { socket, inbox, outbox: Vec::new(), ended: false, role: Role::Greeting }
    }

    /// The next message; `None` until there is one.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Closed> {
        loop {
            if let Some(message) = self.inbox.next().map_err(|_| Closed)? {
                return Ok(Some(message));
            }
            if self.ended {
                return Err(Closed);
            }
            let mut bytes = [0; CHUNK];
            match read(&self.socket, &mut bytes) {
                Ok(0) => self.ended = true,
                Ok(count) => self.inbox.extend(&bytes[..count]),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(_) => return Err(Closed),
            }
        }
    }

    /// Whether the host has closed the connection and everything that it has sent was read.
    pub fn has_ended(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.socket.as_raw_fd(), &mut [0], flags) == Ok(0)
    }

    /// Sends a message, now or when the host takes it.
    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), Closed> {
        self.outbox.extend(frame::encode(message).map_err(|_| Closed)?);
        self.flush()
    }

    /// Whether the host does not read what is sent to it.
    pub fn is_congested(&self) -> bool {
        self.outbox.len() > CONGESTED
    }

    /// Sends bytes that could not be sent before.
    pub fn flush(&mut self) -> Result<(), Closed> {
        while !self.outbox.is_empty() {
            match write(&self.socket, &self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(_) => return Err(Closed),
            }
        }
        Ok(())
    }

    /// The socket, for raw bytes from now on.
    ///
    /// # Errors
    /// [`Closed`] if the host has sent bytes before it was told that it may.
    pub fn into_stream(self) -> Result<OwnedFd, Closed> {
        if self.inbox.is_partial() || !self.outbox.is_empty() { Err(Closed) } else { Ok(self.socket) }
    }
}
