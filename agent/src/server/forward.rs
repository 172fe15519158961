//! Connections of the host to a port of the guest's loopback interface: `kubectl port-forward` uses them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, socket, sockopt::SocketError,
};
use stockade_protocol::agent::{HelloReply, ProcessId};

use super::{Server, Target, proxy::Proxy};
use crate::{
    connection::{Closed, Connection},
    error::{ErrorKind, error, reason},
    poller::{Poller, Token},
    pump::Progress,
};

/// Largest number of connections that are forwarded at a time.
const MAX_FORWARDS: usize = 256;

/// One connection of the host to something in the guest.
pub(super) struct Forward {
    /// Set until the guest's side is connected.
    dialling: Option<Dialling>,
    guest: Rc<OwnedFd>,
    /// Set once the guest's side is connected.
    proxy: Option<Proxy>,
    watched: Vec<Token>,
    /// The init of the container that the connection belongs to, and with which it ends.
    pub container: Option<Rc<ProcessId>>,
}

/// A connection to the guest's side that is being made.
struct Dialling {
    port: u16,
    greeting: Connection,
    /// Whether this is the last address to try.
    is_last_try: bool,
}

impl Server {
    /// Connects to a port of the guest for a connection that has asked for it.
    pub(super) fn begin_forward(&mut self, token: Token, port: u16) -> Result<(), Closed> {
        let connection = self.connections.remove(&token).ok_or(Closed)?;
        self.poller.remove(&connection, token);
        if self.forwards.values().filter(|forward| forward.container.is_none()).count() >= MAX_FORWARDS {
            return refuse(connection, format!("{MAX_FORWARDS} connections are forwarded already"));
        }
        // A refusal comes at once, mostly.
        let first = dial((Ipv4Addr::LOCALHOST, port).into());
        let is_last_try = first.is_err();
        match first.or_else(|errno| dial((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| errno)) {
            Ok(guest) => {
                let mut forward = Forward {
                    dialling: Some(Dialling { port, greeting: connection, is_last_try }),
                    guest: Rc::new(guest),
                    proxy: None,
                    watched: Vec::new(),
                    container: None,
                };
                forward.watch_guest(&mut self.poller, token)?;
                self.forwards.insert(token, forward);
                self.again.push(Target::Forward(token));
                Ok(())
            }
            Err(errno) => refuse(connection, refusal(port, errno)),
        }
    }

    /// Joins a connection of the host with an accepted client; `container` is the client's container, if it belongs to
    /// one.
    pub(super) fn join_client(
        &mut self,
        host: Connection,
        token: Token,
        client: OwnedFd,
        container: Option<Rc<ProcessId>>,
    ) {
        let mut forward =
            Forward { dialling: None, guest: Rc::new(client), proxy: None, watched: Vec::new(), container };
        let joined = forward
            .watch_guest(&mut self.poller, token)
            .and_then(|()| forward.join(host, &mut self.poller, token));
        self.forwards.insert(token, forward);
        if joined.is_ok() {
            self.again.push(Target::Forward(token));
        } else {
            self.end_forward(token);
        }
    }

    /// Ends the connections of a container's clients.
    pub(super) fn end_clients(&mut self, id: &str) {
        let is_its = |forward: &Forward| forward.container.as_ref().is_some_and(|init| init.container == id);
        let tokens: Vec<Token> =
            self.forwards.iter().filter(|(_, forward)| is_its(forward)).map(|(token, _)| *token).collect();
        tokens.into_iter().for_each(|token| self.end_forward(token));
    }

    fn end_forward(&mut self, token: Token) {
        if let Some(forward) = self.forwards.remove(&token) {
            forward.watched.into_iter().for_each(|token| self.poller.forget(token));
        }
    }

    /// Moves the bytes of a forwarded connection.
    pub(super) fn run_forward(&mut self, token: Token) {
        let Some(forward) = self.forwards.get_mut(&token) else { return };
        match forward.advance(&mut self.poller, token) {
            Ok(Progress::Yielded) => self.again.push(Target::Forward(token)),
            Ok(Progress::Blocked) => {}
            Ok(Progress::Finished | Progress::Broken) | Err(Closed) => self.end_forward(token),
        }
    }
}

impl Forward {
    fn watch_guest(&mut self, poller: &mut Poller<Target>, token: Token) -> Result<(), Closed> {
        self.watched.push(poller.add(&self.guest, |_| Target::Forward(token)).map_err(|_| Closed)?);
        Ok(())
    }

    fn advance(&mut self, poller: &mut Poller<Target>, token: Token) -> Result<Progress, Closed> {
        if self.dialling.is_some() && !self.connect(poller, token)? {
            return Ok(Progress::Blocked);
        }
        Ok(self.proxy.as_mut().map_or(Progress::Finished, Proxy::run))
    }

    /// Goes on connecting to the guest's port; true when it is done.
    fn connect(&mut self, poller: &mut Poller<Target>, token: Token) -> Result<bool, Closed> {
        let mut fds = [PollFd::new(self.guest.as_fd(), PollFlags::POLLOUT)];
        if !poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            return Ok(false);
        }
        let outcome = getsockopt(&self.guest, SocketError).unwrap_or(libc::EIO);
        let Dialling { port, greeting, is_last_try } = self.dialling.take().ok_or(Closed)?;
        if outcome == 0 {
            return self.join(greeting, poller, token).map(|()| true);
        }
        match dial((Ipv6Addr::LOCALHOST, port).into()).ok().filter(|_| !is_last_try) {
            Some(guest) => {
                self.dialling = Some(Dialling { port, greeting, is_last_try: true });
                self.guest = Rc::new(guest);
                self.watched.drain(..).for_each(|token| poller.forget(token));
                self.watch_guest(poller, token)?;
                self.connect(poller, token)
            }
            None => refuse(greeting, refusal(port, Errno::from_raw(outcome))).and(Err(Closed)),
        }
    }

    /// Tells the host that the guest's side is connected, and joins the two.
    fn join(
        &mut self,
        mut host: Connection,
        poller: &mut Poller<Target>,
        token: Token,
    ) -> Result<(), Closed> {
        host.send(&HelloReply::Welcome)?;
        let host = Rc::new(host.into_stream()?);
        self.watched.push(poller.add(&host, |_| Target::Forward(token)).map_err(|_| Closed)?);
        self.proxy = Some(Proxy::between(&host, &self.guest));
        Ok(())
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
