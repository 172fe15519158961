//! Sockets of the host that a container may connect to, where the administrator allows it.
//!
//! ```text
//!  client in the container ──▶ socket of the agent ── vsock ──▶ the container's relay ──▶ the host's socket
//! ```
//!
//! A socket's inode on a shared file system is nobody's in the guest's kernel, so the mount shows one of the agent's. The
//! guest still opens no connection to the host: for each socket the relay keeps one connection to the agent, which answers
//! it when a client has come.

mod pace;
mod serve;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::descriptors;
use crate::vm::AGENT_SOCKET;

/// What the relay of a container needs for its sockets.
#[derive(Debug)]
pub struct HostSockets {
    container: String,
    /// The agent's socket, as a file that can only be connected to.
    agent: OwnedFd,
    /// Those of the host likewise, by their numbers.
    sockets: Vec<OwnedFd>,
}

impl HostSockets {
    /// For a container in the VM whose VMM has its sockets in `folder`.
    ///
    /// # Errors
    /// open(2)'s.
    pub fn new(container: &str, folder: BorrowedFd<'_>, sockets: Vec<OwnedFd>) -> io::Result<Self> {
        let agent = descriptors::open_socket(folder, AGENT_SOCKET)?;
        Ok(Self { container: container.to_owned(), agent, sockets })
    }

    /// The same, in a process that was cloned from this one and has descriptors of its own.
    pub fn adopt(&self, adopt: impl Fn(BorrowedFd<'_>) -> OwnedFd) -> Self {
        Self {
            container: self.container.clone(),
            agent: adopt(self.agent.as_fd()),
            sockets: self.sockets.iter().map(|socket| adopt(socket.as_fd())).collect(),
        }
    }

    /// The descriptors of it.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd).chain([self.agent.as_fd()])
    }
}
