//! Events that the agent sends about a container.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use stockade_protocol::agent::{ContainerEvent, Purpose};
use stockade_protocol::frame::{FrameBuffer, GUEST_LIMIT};

use super::{ClientError, Connection};
use crate::vm::Wait;

/// Number of bytes that are read at a time: room for many events.
const CHUNK: usize = 4096;

/// An Events connection.
#[derive(Debug)]
pub struct Events {
    stream: UnixStream,
    buffer: FrameBuffer,
}

impl Events {
    /// Opens a connection for the events of a container from now on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open(
        directory: BorrowedFd<'_>,
        container: &str,
        wait: &mut impl Wait,
    ) -> Result<Self, ClientError> {
        Self::over(Connection::open(directory, Purpose::Events(container.to_owned()), wait)?)
    }

    /// Takes over an existing connection for events.
    ///
    /// # Errors
    /// fcntl(2)'s.
    pub(crate) fn over(Connection(stream): Connection) -> Result<Self, ClientError> {
        stream.set_nonblocking(true).map_err(ClientError::Connect)?;
        Ok(Self { stream, buffer: FrameBuffer::new(GUEST_LIMIT) })
    }

    /// The events that have come, possibly none. It never waits, and reads little at a time, so that a guest that never
    /// stops sending cannot keep it busy.
    ///
    /// # Errors
    /// [`ClientError::Closed`] at the end, or an error for bytes that are not an event.
    pub fn receive(&mut self) -> Result<Vec<ContainerEvent>, ClientError> {
        let mut bytes = [0; CHUNK];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Err(ClientError::Closed),
            Ok(length) => self.buffer.extend(&bytes[..length]),
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
            Err(cause) => return Err(ClientError::Frame(cause.into())),
        }
        let mut events = Vec::new();
        while let Some(event) = self.buffer.next()? {
            events.push(event);
        }
        Ok(events)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
