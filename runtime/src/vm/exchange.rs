//! Messages on a connection to one of the VMM's sockets, in the version of the protocol that is spoken there.
//!
//! The name of a socket tells the version: only the runtime makes names in a container's directory, so a VMM that its
//! guest has taken over cannot choose the version. From version 2 on a hello goes with the first request, and its reply
//! comes with the first answer, so that it costs no round trip.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stockade_protocol::call::Call;
use stockade_protocol::frame::{self, FrameBuffer, FrameError};
use stockade_protocol::vmm::{Hello, HelloReply, OLDEST_VERSION, VERSION};
use stockade_sys::fd_passing;

use super::{CONTROL_SOCKET, CONTROL_SOCKET_OF_0_1};
use crate::sys::deadline::Deadline;
use crate::sys::descriptors;

/// Bytes that are read at a time: nearly every answer, with the reply to a hello.
const CHUNK: usize = 4 << 10;

/// The version from which on there is a hello.
const GREETS_SINCE: u16 = 2;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection failed.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The peer closed the connection.
    #[error("it closed its connection")]
    Closed,
    /// The version that the peer speaks does not have this kind of request.
    #[error("{0}")]
    Version(Mismatch),
}

/// The runtime and the VMM of a container are of different releases.
#[derive(Debug, thiserror::Error)]
#[error(
    "{socket} speaks {spoken} of stockade's VMM protocol, but this stockade needs {needed}: another release has started this VM; \
     use that release, or delete the container and its pod (`stockade delete --force`) and create them anew"
)]
pub struct Mismatch {
    socket: String,
    spoken: String,
    needed: String,
}

impl Mismatch {
    fn new(socket: &str, spoken: (u16, u16), needed: (u16, u16)) -> Self {
        Self { socket: socket.to_owned(), spoken: versions(spoken), needed: versions(needed) }
    }
}

fn versions((oldest, newest): (u16, u16)) -> String {
    if oldest == newest { format!("version {newest}") } else { format!("versions {oldest} to {newest}") }
}

/// Connects to the VMM whose sockets are in `directory`; returns the version that it speaks.
///
/// # Errors
/// connect(2)'s, or that there is only the socket of a newer version.
pub fn connect(directory: BorrowedFd<'_>) -> io::Result<(UnixStream, u16)> {
    for (name, version) in [(CONTROL_SOCKET, VERSION), (CONTROL_SOCKET_OF_0_1, OLDEST_VERSION)] {
        match descriptors::connect(directory, name) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            connected => return Ok((connected?, version)),
        }
    }
    Err(newer(directory).map_or(io::ErrorKind::NotFound.into(), io::Error::other))
}

/// The socket of a newer release in the directory, if there is one.
fn newer(directory: BorrowedFd<'_>) -> Option<Mismatch> {
    let names = fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
    names.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let version = name.strip_prefix("vmm-")?.strip_suffix(".sock")?.parse().ok()?;
        (version > VERSION).then(|| Mismatch::new(&name, (version, version), (OLDEST_VERSION, VERSION)))
    })
}

/// A connection to a socket of the VMM.
#[derive(Debug)]
pub struct Exchange {
    stream: UnixStream,
    socket: &'static str,
    version: u16,
    /// Whether the hello still has to be sent.
    greets: bool,
    /// Whether the reply to the hello still has to come.
    awaits_welcome: bool,
    answers: FrameBuffer,
}

impl Exchange {
    /// Messages of this version on a connection to `socket`; no answer may be longer than `limit`, in bytes, and the
    /// peer has to take what is sent with descriptors `within` this time.
    ///
    /// # Errors
    /// setsockopt(2)'s.
    pub fn new(
        stream: UnixStream,
        socket: &'static str,
        version: u16,
        limit: usize,
        within: Duration,
    ) -> io::Result<Self> {
        stream.set_write_timeout(Some(within))?;
        let greets = version >= GREETS_SINCE;
        Ok(Self { stream, socket, version, greets, awaits_welcome: greets, answers: FrameBuffer::new(limit) })
    }

    /// Checks that the version that is spoken has this kind of request.
    ///
    /// # Errors
    /// [`ExchangeError::Version`] if not.
    pub fn has<C: Call>(&self) -> Result<(), ExchangeError> {
        if C::VERSIONS.contains(&self.version) {
            return Ok(());
        }
        let needed = (*C::VERSIONS.start(), *C::VERSIONS.end());
        Err(ExchangeError::Version(Mismatch::new(self.socket, (self.version, self.version), needed)))
    }

    /// Sends a request, with the descriptors that it is about.
    ///
    /// # Errors
    /// [`ExchangeError::Frame`].
    pub fn send<T: Serialize>(
        &mut self,
        request: &T,
        descriptors: &[OwnedFd],
        deadline: Deadline,
    ) -> Result<(), ExchangeError> {
        let mut bytes = Vec::new();
        if std::mem::take(&mut self.greets) {
            bytes = frame::encode(&Hello::new(self.version))?;
        }
        bytes.extend(frame::encode(request)?);
        let sent = if descriptors.is_empty() {
            deadline.on(&self.stream).write_all(&bytes)
        } else {
            let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
            fd_passing::send(&self.stream, &bytes, &raw)
        };
        Ok(sent.map_err(FrameError::from)?)
    }

    /// Reads the reply to the hello, if that is still to come.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub fn welcome(&mut self, deadline: Deadline) -> Result<(), ExchangeError> {
        if !std::mem::take(&mut self.awaits_welcome) {
            return Ok(());
        }
        match self.next(deadline)? {
            HelloReply::Welcome => Ok(()),
            HelloReply::Refused { oldest, newest } => {
                let ours = (self.version, self.version);
                Err(ExchangeError::Version(Mismatch::new(self.socket, (oldest, newest), ours)))
            }
        }
    }

    /// Receives the next answer.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub fn receive<T: DeserializeOwned>(&mut self, deadline: Deadline) -> Result<T, ExchangeError> {
        self.welcome(deadline)?;
        self.next(deadline)
    }

    fn next<T: DeserializeOwned>(&mut self, deadline: Deadline) -> Result<T, ExchangeError> {
        loop {
            if let Some(message) = self.answers.next()? {
                return Ok(message);
            }
            let mut bytes = [0; CHUNK];
            match deadline.on(&self.stream).read(&mut bytes).map_err(FrameError::from)? {
                0 if self.answers.is_partial() => return Err(FrameError::Truncated.into()),
                0 => return Err(ExchangeError::Closed),
                length => self.answers.extend(&bytes[..length]),
            }
        }
    }

    /// Whether part of an answer is here already.
    pub fn has_begun(&self) -> bool {
        self.answers.is_partial()
    }
}

impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
#[path = "exchange_test.rs"]
mod tests;
