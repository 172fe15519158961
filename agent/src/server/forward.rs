//! Connections of the host to a port of the guest's loopback interface: what `kubectl port-forward` comes in by.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, SockaddrStorage, connect, getsockopt, shutdown, socket,
    sockopt::SocketError,
};
use stockade_protocol::agent::HelloReply;

use super::{Server, Target};
use crate::{
    connection::{Closed, Connection},
    error::{ErrorKind, error, reason},
    poller::{Poller, Token},
    pump::{Progress, Pump},
};

/// Connections that are forwarded at a time.
const MOST_FORWARDS: usize = 256;

/// One connection of the host.
pub(super) struct Forward {
    port: u16,
    /// Until the guest's side is connected.
    greeting: Option<Connection>,
    guest: Rc<OwnedFd>,
    /// If nobody listens there, nobody does.
    is_last_try: bool,
    /// Each with its sink, until its source is at its end.
    pumps: Vec<(Pump, Rc<OwnedFd>)>,
    watched: Vec<Token>,
}

impl Server {
    /// Connects to a port of the guest for a connection that has asked for it.
    pub(super) fn begin_forward(&mut self, token: Token, port: u16) -> Result<(), Closed> {
        let connection = self.connections.remove(&token).ok_or(Closed)?;
        self.poller.remove(&connection, token);
        if self.forwards.len() >= MOST_FORWARDS {
            return refuse(connection, format!("{MOST_FORWARDS} connections are forwarded already"));
        }
        // A refusal comes at once, mostly.
        let first = dial((Ipv4Addr::LOCALHOST, port).into());
        let is_last_try = first.is_err();
        match first.or_else(|errno| dial((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| errno)) {
            Ok(guest) => {
                let mut forward = Forward {
                    port,
                    greeting: Some(connection),
                    guest: Rc::new(guest),
                    is_last_try,
                    pumps: Vec::new(),
                    watched: Vec::new(),
                };
                forward.watch_guest(&mut self.poller, token)?;
                self.forwards.insert(token, forward);
                self.again.push(Target::Forward(token));
                Ok(())
            }
            Err(errno) => refuse(connection, refusal(port, errno)),
        }
    }

    /// Moves what a forwarded connection has.
    pub(super) fn run_forward(&mut self, token: Token) {
        let Some(mut forward) = self.forwards.remove(&token) else { return };
        match forward.advance(&mut self.poller, token) {
            Ok(Progress::Yielded) => self.again.push(Target::Forward(token)),
            Ok(Progress::Blocked) => {}
            Ok(Progress::Finished | Progress::Broken) | Err(Closed) => {
                forward.watched.into_iter().for_each(|token| self.poller.forget(token));
                return;
            }
        }
        self.forwards.insert(token, forward);
    }
}

impl Forward {
    fn watch_guest(&mut self, poller: &mut Poller<Target>, token: Token) -> Result<(), Closed> {
        self.watched.push(poller.add(&self.guest, |_| Target::Forward(token)).map_err(|_| Closed)?);
        Ok(())
    }

    fn advance(&mut self, poller: &mut Poller<Target>, token: Token) -> Result<Progress, Closed> {
        if self.greeting.is_some() && !self.connect(poller, token)? {
            return Ok(Progress::Blocked);
        }
        let mut progress = Progress::Blocked;
        let mut going_on = Vec::new();
        for (mut pump, sink) in self.pumps.drain(..) {
            match pump.run() {
                Progress::Blocked => going_on.push((pump, sink)),
                Progress::Yielded => {
                    progress = Progress::Yielded;
                    going_on.push((pump, sink));
                }
                Progress::Finished => {
                    // A peer that has gone already has seen the end.
                    let _ = shutdown(sink.as_raw_fd(), Shutdown::Write);
                }
                // Neither side has more to say to the other.
                Progress::Broken => return Ok(Progress::Broken),
            }
        }
        self.pumps = going_on;
        Ok(if self.pumps.is_empty() { Progress::Finished } else { progress })
    }

    /// Goes on connecting to the guest's port; true when it is done.
    fn connect(&mut self, poller: &mut Poller<Target>, token: Token) -> Result<bool, Closed> {
        let mut fds = [PollFd::new(self.guest.as_fd(), PollFlags::POLLOUT)];
        if !poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            return Ok(false);
        }
        let outcome = getsockopt(&self.guest, SocketError).unwrap_or(libc::EIO);
        if outcome == 0 {
            let mut connection = self.greeting.take().ok_or(Closed)?;
            connection.send(&HelloReply::Welcome)?;
            let host = Rc::new(connection.into_stream()?);
            self.watched.push(poller.add(&host, |_| Target::Forward(token)).map_err(|_| Closed)?);
            let pump = |source: &Rc<OwnedFd>, sink: &Rc<OwnedFd>| {
                (Pump::copy(Rc::clone(source), Rc::clone(sink)), Rc::clone(sink))
            };
            self.pumps = vec![pump(&host, &self.guest), pump(&self.guest, &host)];
            return Ok(true);
        }
        let second = dial((Ipv6Addr::LOCALHOST, self.port).into()).ok().filter(|_| !self.is_last_try);
        match (second, self.greeting.take()) {
            (Some(guest), greeting) => {
                (self.greeting, self.guest, self.is_last_try) = (greeting, Rc::new(guest), true);
                self.watched.drain(..).for_each(|token| poller.forget(token));
                self.watch_guest(poller, token)?;
                self.connect(poller, token)
            }
            (None, Some(greeting)) => {
                refuse(greeting, refusal(self.port, Errno::from_raw(outcome))).and(Err(Closed))
            }
            (None, None) => Err(Closed),
        }
    }
}

/// Begins to connect.
fn dial(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let guest = socket(family, SockType::Stream, flags, None)?;
    match connect(guest.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(guest),
        Err(errno) => Err(errno),
    }
}

fn refusal(port: u16, errno: Errno) -> String {
    format!("connect to port {port} of the guest's loopback interface: {}", reason(errno))
}

fn refuse(mut connection: Connection, message: String) -> Result<(), Closed> {
    connection.send(&HelloReply::Refused(error(ErrorKind::NotFound, message)))
}
