//! A connection of the host that carries messages: Control or Process, or one that has not said yet.

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

/// With so many bytes waiting for the host, what can be lost is.
const CONGESTED: usize = 64 << 10;

/// Bytes read at a time.
const CHUNK: usize = 16 << 10;

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has yet to say hello.
    Greeting,
    /// Requests; `busy` while one is being worked on.
    Control {
        /// A request waits for its response.
        busy: bool,
    },
    /// Stands for this process.
    Process(Rc<ProcessId>),
    /// Is told what happens to the container of this init.
    Events(Rc<ProcessId>),
    /// Waits for a client of the socket of this number of that init's container.
    Waiting(Rc<ProcessId>, u16),
    /// Waits for a query to the host's resolver.
    WaitingForQuery,
}

/// The connection has ended, failed, or carried something that is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// One connection, non-blocking.
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

    /// Whether the host has closed it and nothing of what it has sent is left to read.
    pub fn has_ended(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.socket.as_raw_fd(), &mut [0], flags) == Ok(0)
    }

    /// Sends a message, now or when the host takes it.
    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), Closed> {
        self.outbox.extend(frame::encode(message).map_err(|_| Closed)?);
        self.flush()
    }

    /// The host does not read what it is sent.
    pub fn is_congested(&self) -> bool {
        self.outbox.len() > CONGESTED
    }

    /// Sends what could not be sent before.
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
    /// [`Closed`] if the host has sent some before it was told that it may.
    pub fn into_stream(self) -> Result<OwnedFd, Closed> {
        if self.inbox.is_partial() || !self.outbox.is_empty() { Err(Closed) } else { Ok(self.socket) }
    }
}
