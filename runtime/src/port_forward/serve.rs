//! The relay's side: each connection is carried by a thread of its own.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use stockade_protocol::agent::{Hello, HelloReply, Purpose};
use stockade_protocol::frame;

use super::PortForward;
use crate::relay::copy::{Copy, Waits};
use crate::sys::own_proc::OwnProc;

/// Connections that are carried at a time; further ones are closed.
const MOST_CONNECTIONS: usize = 128;

/// How long the agent may take to connect to a port of its own machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Stack of a connection's thread, in bytes; its buffers are not on it.
const STACK: usize = 64 << 10;

/// Forwards ports for as long as it is there.
#[derive(Debug)]
pub struct Forwarder {
    listeners: Vec<TcpListener>,
    /// Never looked at: it is in force while it is open.
    _steering: OwnedFd,
    agent: Arc<OwnedFd>,
    proc: OwnProc,
    carried: Arc<AtomicUsize>,
}

impl Forwarder {
    /// Takes over what was prepared, in a process with this procfs.
    pub fn new(PortForward { listeners, steering, agent }: PortForward, proc: OwnProc) -> Self {
        Self { listeners, _steering: steering, agent: Arc::new(agent), proc, carried: Arc::default() }
    }

    /// What becomes readable when somebody connects.
    pub fn listeners(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd)
    }

    /// Takes a connection in, if there is one.
    pub fn accept(&self, index: usize) {
        let Some(Ok((client, _))) = self.listeners.get(index).map(TcpListener::accept) else { return };
        if self.carried.load(Ordering::Relaxed) >= MOST_CONNECTIONS {
            return;
        }
        let (agent, proc) = (Arc::clone(&self.agent), self.proc.clone());
        let place = Place::take(&self.carried);
        let carry = move || {
            let _place = place;
            // The client sees its connection end.
            let _ = carry(&client, &agent, &proc);
        };
        // Without a thread the connection is dropped, which the client sees.
        let _ = thread::Builder::new().name("port-forward".into()).stack_size(STACK).spawn(carry);
    }
}

/// One of the connections that are carried.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(carried: &Arc<AtomicUsize>) -> Self {
        carried.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(carried))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Carries one connection to its end.
fn carry(client: &TcpStream, agent: &OwnedFd, proc: &OwnProc) -> io::Result<()> {
    let Some(guest) = connect(client.local_addr()?.port(), agent, proc)? else {
        // The nearest thing to the refusal that the client would have met in the guest.
        let reset = libc::linger { l_onoff: 1, l_linger: 0 };
        return Ok(setsockopt(client, sockopt::Linger, &reset)?);
    };
    client.set_nonblocking(true)?;
    guest.set_nonblocking(true)?;
    let mut copies = [
        Copy::new(client.try_clone()?, guest.try_clone()?, true)?,
        Copy::new(guest, client.try_clone()?, true)?,
    ];
    while copies.iter().any(|copy| !copy.is_done()) {
        let waits = copies.iter().filter_map(Copy::waits).map(|waits| match waits {
            Waits::Readable(fd) => PollFd::new(fd, PollFlags::POLLIN),
            Waits::Writable(fd) => PollFd::new(fd, PollFlags::POLLOUT),
        });
        match poll(&mut waits.collect::<Vec<_>>(), PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => copies.iter_mut().for_each(Copy::advance),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// A connection to a port of the guest's loopback interface; `None` if nobody listens there.
fn connect(port: u16, agent: &OwnedFd, proc: &OwnProc) -> io::Result<Option<UnixStream>> {
    proc.enter()?;
    let mut guest = proc.connect(agent)?;
    guest.set_read_timeout(Some(ANSWERS_WITHIN))?;
    guest.set_write_timeout(Some(ANSWERS_WITHIN))?;
    frame::write(&mut guest, &Hello::new(Purpose::Forward(port))).map_err(io::Error::other)?;
    match frame::read(&mut guest, frame::GUEST_LIMIT).map_err(io::Error::other)? {
        Some(HelloReply::Welcome) => Ok(Some(guest)),
        Some(HelloReply::Refused(_)) | None => Ok(None),
    }
}
