//! Length-prefixed postcard, with a hard limit on the bytes that a peer can make the reader buffer.
//!
//! A frame is a little-endian `u32` length followed by that many bytes of postcard. The reader states its own
//! limit, because the two directions of one connection are not equally trusted.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

/// Longest frame that the agent or the VMM accepts from the host, in bytes.
pub const HOST_LIMIT: usize = 8 << 20;

/// Longest frame that the host accepts from a guest, in bytes.
pub const GUEST_LIMIT: usize = 256 << 10;

/// Bytes of the length that precedes every message.
const HEADER: usize = 4;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    /// The connection ended inside a frame.
    #[error("connection ended in the middle of a message")]
    Truncated,
    /// The peer announced more than the reader accepts.
    #[error("message of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// Announced length, in bytes.
        length: usize,
        /// The reader's limit, in bytes.
        limit: usize,
    },
    /// The bytes are not the expected message.
    #[error("malformed message: {0}")]
    Malformed(#[from] postcard::Error),
    /// The message is shorter than its frame: the peer has sent another message, or a message of another version.
    #[error("malformed message: {0} bytes too long")]
    Trailing(usize),
}

/// The bytes of one frame.
///
/// # Errors
/// [`FrameError::TooLong`] if the message is over [`HOST_LIMIT`].
pub fn encode<T: Serialize + ?Sized>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(message, vec![0; HEADER])?;
    let length = frame.len() - HEADER;
    if length > HOST_LIMIT {
        return Err(FrameError::TooLong { length, limit: HOST_LIMIT });
    }
    // The limit is far below u32::MAX.
    frame[..HEADER].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Writes one message.
///
/// # Errors
/// As [`encode`], or [`FrameError::Io`].
pub fn write<T: Serialize + ?Sized>(to: &mut impl Write, message: &T) -> Result<(), FrameError> {
    Ok(to.write_all(&encode(message)?)?)
}

/// Reads one message of at most `limit` bytes; `None` where the connection ended between messages.
///
/// # Errors
/// Any [`FrameError`]; the connection is of no further use after one.
pub fn read<T: DeserializeOwned>(from: &mut impl Read, limit: usize) -> Result<Option<T>, FrameError> {
    let mut header = [0; HEADER];
    let mut have = 0;
    while have < HEADER {
        match from.read(&mut header[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(FrameError::Truncated),
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let length = checked_length(header, limit)?;
    let mut body = vec![0; length];
    from.read_exact(&mut body).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Truncated,
        _ => FrameError::Io(e),
    })?;
    Ok(Some(decode(&body)?))
}

/// Collects frames from a non-blocking connection.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    limit: usize,
}

impl FrameBuffer {
    /// An empty buffer that accepts frames of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit }
    }

    /// Appends what the connection delivered.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// True while part of a frame waits for its rest.
    pub fn is_partial(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Takes the next whole message, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] or [`FrameError::Malformed`]; the connection is of no further use after one.
    #[expect(clippy::should_implement_trait, reason = "each call may await another type of message")]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(header) = self.bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let end = HEADER + checked_length(*header, self.limit)?;
        let Some(body) = self.bytes.get(HEADER..end) else { return Ok(None) };
        let message = decode(body)?;
        self.bytes.drain(..end);
        Ok(Some(message))
    }
}

/// Decodes the message that takes up all of these bytes. Bytes that are left over are an error, because an old peer
/// would ignore a field that it has to obey.
fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body)? {
        (message, []) => Ok(message),
        (_, rest) => Err(FrameError::Trailing(rest.len())),
    }
}

fn checked_length(header: [u8; HEADER], limit: usize) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(header) as usize;
    if length > limit { Err(FrameError::TooLong { length, limit }) } else { Ok(length) }
}
