//! The relay's side: each connection is proxied by a thread of its own.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use stockade_protocol::agent::{Hello, HelloReply, Purpose};
use stockade_protocol::frame;

use crate::relay::proxy::{self, REPLY_LIMIT, Semaphore};
use crate::relay::service::Running;
use crate::sys::deadline::Deadline;
use crate::sys::own_proc::OwnProc;

/// Largest number of open connections; further ones are closed.
const MAX_CONNECTIONS: usize = 128;

/// How long the agent may take to connect to a port of its own machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Forwards ports until it is dropped.
#[derive(Debug)]
pub(super) struct Forwarder {
    listeners: Vec<TcpListener>,
    /// Never used, but the program has an effect while this is open.
    _program: OwnedFd,
    agent: Arc<OwnedFd>,
    proc: OwnProc,
    semaphore: Semaphore,
}

impl Forwarder {
    /// Makes a forwarder from what was prepared.
    pub fn new(listeners: Vec<TcpListener>, program: OwnedFd, agent: OwnedFd, proc: OwnProc) -> Self {
        Self {
            listeners,
            _program: program,
            agent: Arc::new(agent),
            proc,
            semaphore: Semaphore::new(MAX_CONNECTIONS),
        }
    }
}

impl Running for Forwarder {
    fn polled(&self) -> Vec<BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd).collect()
    }

    /// Accepts a connection, if there is one.
    fn advance(&mut self, index: usize) {
        let Some(Ok((client, _))) = self.listeners.get(index).map(TcpListener::accept) else { return };
        let Some(permit) = self.semaphore.take() else { return };
        let (agent, proc) = (Arc::clone(&self.agent), self.proc);
        proxy::spawn("port-forward", permit, move || {
            // The client sees its connection end.
            let _ = forward(client, &agent, proc);
        });
    }
}

/// Proxies one connection to its end.
fn forward(client: TcpStream, agent: &OwnedFd, proc: OwnProc) -> io::Result<()> {
    let Some(guest) = connect(client.local_addr()?.port(), agent, proc)? else {
        // This resets the connection, which is most similar to the refusal that a client in the guest would get.
        let reset = libc::linger { l_onoff: 1, l_linger: 0 };
        return Ok(setsockopt(&client, sockopt::Linger, &reset)?);
    };
    proxy::proxy(client, guest)
}

/// A connection to a port of the guest's loopback interface; `None` if nobody listens there.
fn connect(port: u16, agent: &OwnedFd, proc: OwnProc) -> io::Result<Option<UnixStream>> {
    let deadline = Deadline::within(ANSWERS_WITHIN);
    greet(proc.connect(agent)?, port, deadline)
}

/// Asks the agent for a connection to the port; `None` if nobody listens there.
pub(crate) fn greet(guest: UnixStream, port: u16, deadline: Deadline) -> io::Result<Option<UnixStream>> {
    frame::write(&mut deadline.on(&guest), &Hello::new(Purpose::Forward(port))).map_err(io::Error::other)?;
    answer(&guest, deadline).map(|is_welcome| is_welcome.then_some(guest))
}

/// Whether the agent has connected.
fn answer(guest: &UnixStream, deadline: Deadline) -> io::Result<bool> {
    match frame::read(&mut deadline.on(guest), REPLY_LIMIT).map_err(io::Error::other)? {
        Some(HelloReply::Welcome) => Ok(true),
        Some(HelloReply::Refused(_)) | None => Ok(false),
    }
}

#[cfg(test)]
#[path = "serve_test.rs"]
mod tests;
