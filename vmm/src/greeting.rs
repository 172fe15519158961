//! The hello at the beginning of every connection of the runtime.

use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
};

use serde::Serialize;
use stockade_protocol::{
    frame::{self, FrameBuffer, FrameError},
    vmm::{Hello, HelloReply},
};

/// The progress of a connection's greeting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Greeting {
    /// The runtime's hello has not come yet.
    #[default]
    Awaited,
    /// The hello has come; the reply is sent together with the first answer.
    Heard,
    /// Requests and answers follow each other.
    Done,
}

impl Greeting {
    /// Reads the hello if it has not come yet; false until it is complete.
    ///
    /// # Errors
    /// The connection is of no further use: it does not begin with a hello, or with an unsupported version, which the
    /// runtime is told.
    pub fn hear(&mut self, requests: &mut FrameBuffer, stream: &UnixStream) -> io::Result<bool> {
        if *self != Self::Awaited {
            return Ok(true);
        }
        let Some(hello) = requests.next::<Hello>().map_err(io::Error::other)? else { return Ok(false) };
        match hello.reply() {
            Some(HelloReply::Welcome) => {
                *self = Self::Heard;
                return Ok(true);
            }
            Some(refusal) => send(stream, &refusal)?,
            None => {}
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "not a hello of a supported version"))
    }

    /// Sends the reply to the hello alone, before an answer that comes later.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn welcome(&mut self, stream: &UnixStream) -> io::Result<()> {
        match std::mem::replace(self, Self::Done) {
            Self::Heard => send(stream, &HelloReply::Welcome),
            Self::Awaited | Self::Done => Ok(()),
        }
    }

    /// Sends an answer.
    ///
    /// # Errors
    /// The connection has failed.
    pub fn answer<T: Serialize>(&mut self, mut stream: &UnixStream, answer: &T) -> io::Result<()> {
        let encode = || -> Result<Vec<u8>, FrameError> {
            let mut bytes = match self {
                Self::Heard => frame::encode(&HelloReply::Welcome)?,
                Self::Awaited | Self::Done => Vec::new(),
            };
            bytes.extend(frame::encode(answer)?);
            Ok(bytes)
        };
        let bytes = encode().map_err(io::Error::other)?;
        *self = Self::Done;
        stream.write_all(&bytes)
    }
}

fn send<T: Serialize>(mut stream: &UnixStream, message: &T) -> io::Result<()> {
    stream.write_all(&frame::encode(message).map_err(io::Error::other)?)
}

#[cfg(test)]
#[path = "greeting_test.rs"]
mod tests;
