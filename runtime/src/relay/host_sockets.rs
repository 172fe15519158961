//! Sockets of the host that a container may connect to, where the administrator allows it.
//!
//! ```text
//!  client in the container ──▶ socket of the agent ── vsock ──▶ the container's relay ──▶ the host's socket
//! ```
//!
//! In the guest's kernel nobody listens on a socket's inode of a shared file system, so the mount shows a socket of the
//! agent. The guest still opens no connection to the host: for each socket the relay keeps one connection to the agent,
//! which answers it when a client has come.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use stockade_protocol::agent::{Hello, Purpose};

use super::clients::Clients;
use super::proxy::{STACK, Semaphore};
use crate::relay::service::{Adopt, Running, Served, Service};
use crate::sys::descriptors;
use crate::sys::own_proc::OwnProc;
use crate::vm::AGENT_SOCKET;

/// Largest number of open connections of one container; further ones wait.
const MAX_CONNECTIONS: usize = 64;

/// What the relay of a container needs for its sockets.
#[derive(Debug)]
pub struct HostSockets<'a> {
    container: &'a str,
    /// The agent's socket, as an O_PATH descriptor, which can only be connected to.
    agent: OwnedFd,
    /// The host's sockets, likewise, by their numbers.
    sockets: &'a [OwnedFd],
}

impl HostSockets<'_> {
    /// Prepares the service for a container that has sockets of the host.
    ///
    /// # Errors
    /// open(2)'s.
    pub fn prepare<'a>(served: &Served<'a>) -> anyhow::Result<Option<Box<dyn Service + 'a>>> {
        if served.sockets.is_empty() {
            return Ok(None);
        }
        let agent = descriptors::open_socket(served.directory, AGENT_SOCKET)
            .context("cannot open the socket to the VM's agent")?;
        Ok(Some(Box::new(HostSockets { container: &served.record.id, agent, sockets: served.sockets })))
    }
}

impl Service for HostSockets<'_> {
    fn name(&self) -> &'static str {
        "sockets of the host"
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd).chain([self.agent.as_fd()]).collect()
    }

    fn needs_proc(&self) -> bool {
        true
    }

    fn adopt(&self, adopt: Adopt, proc: OwnProc) -> io::Result<Box<dyn Running>> {
        let sockets = self.sockets.iter().map(|socket| adopt(socket.as_fd())).collect();
        let agent = Arc::new(adopt(self.agent.as_fd()));
        Ok(Box::new(Connector { container: self.container.to_owned(), agent, sockets, proc }))
    }
}

/// Connects clients in the guest to sockets of the host, once the agent knows their container.
#[derive(Debug)]
struct Connector {
    container: String,
    agent: Arc<OwnedFd>,
    sockets: Vec<OwnedFd>,
    proc: OwnProc,
}

impl Running for Connector {
    /// Starts a thread for each socket, which runs until the process ends.
    fn start(&mut self) {
        let (semaphore, proc) = (Semaphore::new(MAX_CONNECTIONS), self.proc);
        for (number, socket) in (0..).zip(std::mem::take(&mut self.sockets)) {
            let (agent, semaphore) = (Arc::clone(&self.agent), semaphore.clone());
            let hello = Hello::new(Purpose::Socket(self.container.clone(), number));
            let serve = move || {
                let agent = || proc.connect(&agent);
                let service = || proc.connect(&socket).map(OwnedFd::from);
                // The VM has ended, so there are no clients.
                let _ = Clients { hello, agent, service, semaphore: &semaphore }.serve();
            };
            // Without a thread, clients see that nobody listens.
            let _ = thread::Builder::new().name("host-socket".into()).stack_size(STACK).spawn(serve);
        }
    }
}
