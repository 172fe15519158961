//! Clients in the guest of a service on the host. Each client gets a connection to the agent, which has waited for it, and
//! a thread that copies.
//!
//! The guest is hostile. It can only get connections to what its container may connect to: no faster than [`Pace`] allows,
//! and no more at a time than there are permits.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use stockade_protocol::agent::{Hello, HelloReply};
use stockade_protocol::frame;

use super::pace::Pace;
use super::proxy::{self, REPLY_LIMIT, Semaphore};

/// A service of the host for clients in the guest.
#[derive(Debug)]
pub struct Clients<'a, A, S> {
    /// The hello that tells the agent which clients are meant.
    pub hello: Hello,
    /// A function that connects to the agent.
    pub agent: A,
    /// A function that connects to the service.
    pub service: S,
    /// Limits how many clients are connected at a time; further ones wait.
    pub semaphore: &'a Semaphore,
}

impl<A, S> Clients<'_, A, S>
where
    A: Fn() -> io::Result<UnixStream>,
    S: Fn() -> io::Result<OwnedFd>,
{
    /// Serves clients until the VM ends.
    ///
    /// # Errors
    /// The error that shows that the VM has ended.
    pub fn serve(&self) -> io::Result<()> {
        let mut pace = Pace::new(Instant::now());
        loop {
            let wait = pace.turn(Instant::now());
            if !wait.is_zero() {
                thread::sleep(wait);
            }
            let guest = match (self.agent)() {
                // The VM has ended.
                Err(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => return Err(cause),
                guest => guest.and_then(|guest| announce(guest, &self.hello)).and_then(client),
            };
            if let Ok(guest) = guest {
                self.connect(guest);
            }
        }
    }

    /// Connects a client that has come.
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

/// Sends the hello to the agent, which then waits for a client.
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
/// read(2)'s; `ConnectionRefused` if none will come.
pub fn client(mut guest: UnixStream) -> io::Result<UnixStream> {
    match frame::read(&mut guest, REPLY_LIMIT).map_err(io::Error::other)? {
        Some(HelloReply::Welcome) => Ok(guest),
        Some(HelloReply::Refused(_)) | None => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

#[cfg(test)]
#[path = "clients_test.rs"]
mod tests;
