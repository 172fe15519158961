//! The messages between a relay and its creator: packets with a kind, followed by a text or accompanied by descriptors.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use stockade_sys::fd_passing;

use crate::sys::descriptors;

/// Longest packet, in bytes.
const LIMIT: usize = 4096;

/// A packet, without the descriptors that come with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// From the relay: some of the trees, as descriptors.
    Trees,
    /// From the relay: everything is set up.
    Prepared,
    /// From the relay: it has failed, for this reason.
    Failed(String),
    /// To the relay: connections to the agent, as descriptors.
    Connections,
    /// To the relay: live on without your creator.
    Commit,
    /// From the relay: its namespaces are ready for the host's hooks.
    Entered,
    /// To the relay: the host's hooks have been run.
    GoOn,
}

impl Message {
    const fn kind(&self) -> u8 {
        match self {
            Self::Trees => 1,
            Self::Prepared => 2,
            Self::Failed(_) => 3,
            Self::Connections => 4,
            Self::Commit => 5,
            Self::Entered => 6,
            Self::GoOn => 7,
        }
    }

    fn decode(packet: &[u8]) -> Option<Self> {
        let (kind, text) = packet.split_first()?;
        Some(match kind {
            1 => Self::Trees,
            2 => Self::Prepared,
            3 => Self::Failed(String::from_utf8_lossy(text).into_owned()),
            4 => Self::Connections,
            5 => Self::Commit,
            6 => Self::Entered,
            7 => Self::GoOn,
            _ => return None,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut packet = vec![self.kind()];
        if let Self::Failed(text) = self {
            packet.extend_from_slice(text.as_bytes());
            packet.truncate(LIMIT);
        }
        packet
    }

    /// Sends the message. A confined relay can do that too.
    ///
    /// # Errors
    /// send(2)'s.
    pub fn send(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        descriptors::send_bytes(socket, &self.encode())
    }

    /// Sends the message with descriptors.
    ///
    /// # Errors
    /// sendmsg(2)'s.
    pub fn send_with(&self, socket: BorrowedFd<'_>, descriptors: &[RawFd]) -> io::Result<()> {
        fd_passing::send(socket, &self.encode(), descriptors)
    }

    /// Waits for a message with its descriptors; `None` if the other side has closed, or has sent something that is not
    /// a message.
    ///
    /// # Errors
    /// recvmsg(2)'s.
    pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Self, Vec<OwnedFd>)>> {
        let mut packet = [0; LIMIT];
        let (length, descriptors) = descriptors::receive(socket, &mut packet)?;
        Ok(Self::decode(&packet[..length]).map(|message| (message, descriptors)))
    }
}

#[cfg(test)]
#[path = "messages_test.rs"]
mod tests;
