//! Clients in the guest of a service of the host's: for each there is a connection to the agent that has waited for it, and a
//! thread that copies.
//!
//! The guest is hostile. What it can have is connections to what its container may connect to: no faster than [`Pace`] allows, and no
//! more at a time than there are permits.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use stockade_protocol::agent::{Hello, HelloReply};
use stockade_protocol::frame;

use super::pace::Pace;
use super::proxy::{self, REPLY_LIMIT, Semaphore};

/// What clients in the guest come to.
#[derive(Debug)]
pub struct Clients<'a, A, S> {
    /// Says to the agent whose clients are waited for.
    pub hello: Hello,
    /// Connects to the agent.
    pub agent: A,
    /// Connects to the service.
    pub service: S,
    /// As many as are connected at a time; further ones wait.
    pub semaphore: &'a Semaphore,
}

impl<A, S> Clients<'_, A, S>
where
    A: Fn() -> io::Result<UnixStream>,
    S: Fn() -> io::Result<OwnedFd>,
{
    /// Serves them for as long as there is a VM.
    ///
    /// # Errors
    /// What says that there is none any more.
    pub fn serve(&self) -> io::Result<()> {
        let mut pace = Pace::new(Instant::now());
        loop {
            let wait = pace.turn(Instant::now());
            if !wait.is_zero() {
                thread::sleep(wait);
            }
            let guest = match (self.agent)() {
                // The VM is gone.
                Err(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => return Err(cause),
                guest => guest.and_then(|guest| announce(guest, &self.hello)).and_then(client),
            };
            if let Ok(guest) = guest {
                self.connect(guest);
            }
        }
    }

    /// Connects one that has come.
    pub fn connect(&self, guest: UnixStream) {
        let permit = self.semaphore.wait();
        // Without a server the client sees its connection end.
        if let Ok(server) = (self.service)() {
            proxy::spawn("client", permit, move || {
                // Both sides see their connection end.
                let _ = proxy::proxy(guest, server);
            });
        }
    }
}

/// Tells the agent whose client is waited for.
///
/// # Errors
/// write(2)'s.
pub fn announce(mut guest: UnixStream, hello: &Hello) -> io::Result<UnixStream> {
    frame::write(&mut guest, hello).map_err(io::Error::other)?;
    Ok(guest)
}

/// Waits for a client in the guest.
///
/// # Errors
/// read(2)'s; `ConnectionRefused` where none is going to come.
pub fn client(mut guest: UnixStream) -> io::Result<UnixStream> {
    match frame::read(&mut guest, REPLY_LIMIT).map_err(io::Error::other)? {
        Some(HelloReply::Welcome) => Ok(guest),
        Some(HelloReply::Refused(_)) | None => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

#[cfg(test)]
#[path = "clients_test.rs"]
mod tests;
