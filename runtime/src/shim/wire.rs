//! ttrpc: requests and answers over a UNIX socket, each a header of ten bytes and a message.
//!
//! ```text
//!   length of the message (4, big endian) | stream (4, big endian) | type (1) | flags (1) | message
//! ```
//!
//! The other side is containerd, which the host trusts as it trusts root: only root can connect. A message that is too
//! long ends the connection all the same.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use prost::Message;

use super::messages::{Request, Response, RpcStatus};
use crate::text::table::printable;

/// Longest message, in bytes: ttrpc's own limit.
pub const MAX_MESSAGE: usize = 4 << 20;

/// How long containerd may take to make room for an answer.
const TAKES_WITHIN: Duration = Duration::from_secs(10);

const HEADER: usize = 10;
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// Bytes that are read at a time.
const CHUNK: usize = 8 << 10;

/// The codes of gRPC that containerd tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
}

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

impl Refusal {
    /// With the words of whoever has refused, a guest among them: containerd's clients write them to terminals as they are.
    pub fn new(code: Code, message: impl AsRef<str>) -> Self {
        Self { code, message: printable(message.as_ref()) }
    }

    /// That of a method that the shim does not have.
    pub fn no_method(method: &str) -> Self {
        Self::new(Code::Unimplemented, format!("this shim has no method {method}"))
    }

    /// That of a container that the shim does not have, or not any more.
    pub fn no_container(id: &str) -> Self {
        Self::new(Code::NotFound, format!("container {id:?} does not exist"))
    }

    /// That of a signal to an exec that has not begun, and of waiting for its end. After "not found", containerd would wait for that
    /// end before it deletes the exec, until its time is over.
    pub fn not_started() -> Self {
        Self::new(Code::FailedPrecondition, "the process has not been started")
    }

    /// That of a request that needs a thread where there can be none.
    pub fn no_thread(cause: &io::Error) -> Self {
        Self::new(Code::ResourceExhausted, format!("the shim can start no thread: {cause}"))
    }
}

/// The answer to a request: a message, or why there is none.
pub type Answer = Result<Vec<u8>, Refusal>;

/// Decodes a request's message.
///
/// # Errors
/// [`Code::InvalidArgument`].
pub fn read<T: Message + Default>(payload: &[u8]) -> Result<T, Refusal> {
    T::decode(payload)
        .map_err(|error| Refusal::new(Code::InvalidArgument, format!("the request is malformed: {error}")))
}

/// One message with its header.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub stream: u32,
    pub kind: u8,
    pub message: Vec<u8>,
}

/// Bytes that have come and are not yet a whole message.
#[derive(Debug, Default)]
pub struct Incoming(Vec<u8>);

impl Incoming {
    pub fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole message.
    ///
    /// # Errors
    /// `InvalidData` for one that is too long.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        let Some(header) = self.0.first_chunk::<HEADER>() else { return Ok(None) };
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _] = *header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than 4 MiB"));
        }
        let Some(message) = self.0.get(HEADER..HEADER + length) else { return Ok(None) };
        let message = message.to_vec();
        self.0.drain(..HEADER + length);
        if self.0.is_empty() {
            // What one long request needed is not kept.
            self.0 = Vec::new();
        }
        Ok(Some(Frame { stream: u32::from_be_bytes([s0, s1, s2, s3]), kind, message }))
    }
}

fn frame(stream: u32, kind: u8, message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(HEADER + length);
    // Longer ones are refused before.
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes
}

/// A connection of containerd's. The main thread reads from it, and any thread answers.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    writes: Mutex<()>,
}

impl Connection {
    /// Takes over an accepted connection.
    ///
    /// # Errors
    /// setsockopt(2)'s.
    pub fn new(stream: UnixStream) -> io::Result<Arc<Self>> {
        stream.set_write_timeout(Some(TAKES_WITHIN))?;
        Ok(Arc::new(Self { stream, writes: Mutex::new(()) }))
    }

    /// Reads what is there; false at the end.
    ///
    /// # Errors
    /// recv(2)'s.
    pub fn read(&self, incoming: &mut Incoming) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        match recv(self.stream.as_raw_fd(), &mut chunk, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Ok(false),
            Ok(length) => {
                incoming.extend(&chunk[..length]);
                Ok(true)
            }
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    fn answer(&self, stream: u32, answer: Answer) -> io::Result<()> {
        let response = match answer {
            Ok(payload) => Response { status: None, payload },
            Err(refusal) => {
                let status = RpcStatus { code: refusal.code as i32, message: refusal.message };
                Response { status: Some(status), payload: Vec::new() }
            }
        };
        let bytes = frame(stream, RESPONSE, &response);
        let _order = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.stream).write_all(&bytes)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Where the answer to one request goes.
#[derive(Clone, Debug)]
pub struct Reply {
    connection: Arc<Connection>,
    stream: u32,
}

impl Reply {
    /// Answers.
    pub fn send(self, answer: Answer) {
        if let Err(cause) = self.connection.answer(self.stream, answer) {
            // containerd has gone, and asks anew when it is there again.
            tracing::debug!("cannot answer containerd: {cause}");
        }
    }
}

/// The request in a frame, and where its answer goes; `None` for what is not a request.
pub fn request(connection: &Arc<Connection>, frame: &Frame) -> Option<(Request, Reply)> {
    if frame.kind != REQUEST {
        return None;
    }
    let reply = Reply { connection: Arc::clone(connection), stream: frame.stream };
    match Request::decode(&*frame.message) {
        Ok(request) => Some((request, reply)),
        Err(error) => {
            reply
                .send(Err(Refusal::new(Code::InvalidArgument, format!("the request is malformed: {error}"))));
            None
        }
    }
}

/// A request to containerd, on a connection with nothing else under way, and its answer.
///
/// # Errors
/// The connection's, or `InvalidData` for what is not an answer.
pub fn call(mut stream: &UnixStream, id: u32, request: &Request) -> io::Result<Answer> {
    stream.write_all(&frame(id, REQUEST, request))?;
    let mut incoming = Incoming::default();
    let mut chunk = [0; CHUNK];
    let response = loop {
        if let Some(frame) = incoming.next()? {
            if frame.stream == id && frame.kind == RESPONSE {
                break Response::decode(&*frame.message)?;
            }
            continue;
        }
        match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => incoming.extend(&chunk[..length]),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    };
    Ok(match response.status {
        Some(status) if status.code != 0 => Err(Refusal::new(Code::Unknown, status.message)),
        _ => Ok(response.payload),
    })
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod tests;
