//! The relay's side: a thread for each socket, and one for each connection.
//!
//! The guest is hostile. What it can have is connections to the sockets that its container may connect to: at most
//! [`MAX_CONNECTIONS`] at a time, and no faster than [`Pace`] allows.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use stockade_protocol::agent::{Hello, HelloReply, Purpose};
use stockade_protocol::frame;

use super::pace::Pace;
use crate::relay::proxy::{self, REPLY_LIMIT, STACK, Semaphore};
use crate::relay::service::Running;
use crate::sys::own_proc::OwnProc;

/// Connections of one container that are open at a time; further ones wait.
const MAX_CONNECTIONS: usize = 64;

/// Connects clients in the guest to sockets of the host, once the agent knows their container.
#[derive(Debug)]
pub(super) struct Connector {
    container: String,
    agent: Arc<OwnedFd>,
    sockets: Vec<OwnedFd>,
    proc: OwnProc,
}

impl Connector {
    /// For these sockets, by their numbers.
    pub fn new(container: String, agent: OwnedFd, sockets: Vec<OwnedFd>, proc: OwnProc) -> Self {
        Self { container, agent: Arc::new(agent), sockets, proc }
    }
}

impl Running for Connector {
    /// A thread for each, until the process ends.
    fn start(&mut self) {
        let (semaphore, proc) = (Semaphore::new(MAX_CONNECTIONS), self.proc);
        for (number, socket) in (0..).zip(std::mem::take(&mut self.sockets)) {
            let (agent, semaphore) = (Arc::clone(&self.agent), semaphore.clone());
            let hello = Hello::new(Purpose::Socket(self.container.clone(), number));
            let serve = move || {
                // Without a VM there is nobody to serve.
                let _ = serve(&hello, &agent, &socket, &semaphore, proc);
            };
            // Without a thread nobody is served, as where nobody listens.
            let _ = thread::Builder::new().name("host-socket".into()).stack_size(STACK).spawn(serve);
        }
    }
}

/// Serves one socket for as long as there is a VM.
fn serve(
    hello: &Hello,
    agent: &OwnedFd,
    socket: &OwnedFd,
    semaphore: &Semaphore,
    proc: OwnProc,
) -> io::Result<()> {
    let mut pace = Pace::new(Instant::now());
    loop {
        let wait = pace.turn(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
        let guest = match proc.connect(agent) {
            // The VM is gone.
            Err(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => return Err(cause),
            guest => guest.and_then(|guest| client(guest, hello)),
        };
        if let Ok(guest) = guest {
            let permit = semaphore.wait();
            // Without a server the client sees its connection end.
            if let Ok(server) = proc.connect(socket) {
                proxy::spawn("host-client", permit, move || {
                    // Both sides see their connection end.
                    let _ = proxy::proxy(guest, server);
                });
            }
        }
    }
}

/// Waits for a client in the guest.
fn client(mut guest: UnixStream, hello: &Hello) -> io::Result<UnixStream> {
    frame::write(&mut guest, hello).map_err(io::Error::other)?;
    match frame::read(&mut guest, REPLY_LIMIT).map_err(io::Error::other)? {
        Some(HelloReply::Welcome) => Ok(guest),
        Some(HelloReply::Refused(_)) | None => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

#[cfg(test)]
#[path = "serve_test.rs"]
mod tests;
