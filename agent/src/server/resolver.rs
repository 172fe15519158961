//! Queries of containers to a resolver of the host: each goes to a connection of the host that waits for it.

use std::{collections::VecDeque, net::SocketAddrV4, os::fd::OwnedFd};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::{read, write},
};

use super::{Server, Target};
use crate::{
    connection::Role,
    error::Result,
    poller::Token,
    resolver::{Resolver, fit},
    sockets::accept,
};

/// Largest number of queries and clients that wait or are answered at a time; clients beyond it ask again.
const MAX_WAITING: usize = 256;

/// Size of the length before a message over TCP, in bytes (RFC 1035, 4.2.2).
const LENGTH: usize = 2;

/// The resolver's sockets, and the clients that are served.
#[derive(Debug)]
pub(super) struct Resolving {
    resolver: Resolver,
    /// The host's connection that waits for a query.
    waiting: Option<Token>,
    /// Whether the host takes queries.
    is_served: bool,
    /// Clients that wait for a connection of the host.
    clients: VecDeque<OwnedFd>,
    queries: Vec<Query>,
}

/// A query that came as a datagram and is answered by a stream.
#[derive(Debug)]
struct Query {
    token: Token,
    stream: OwnedFd,
    query: Vec<u8>,
    client: SocketAddrV4,
    answer: Vec<u8>,
}

impl Server {
    /// Lets a connection of the host wait for the next query. The first such connection makes the agent listen for
    /// queries.
    pub(super) fn admit_resolver(&mut self, token: Token) -> Result<()> {
        if self.resolving.is_none() {
            let resolver = Resolver::listen()?;
            self.poller.add(&resolver.listener, |_| Target::Resolver)?;
            self.poller.add(resolver.datagrams(), |_| Target::Resolver)?;
            let (clients, queries) = (VecDeque::new(), Vec::new());
            self.resolving = Some(Resolving { resolver, waiting: None, is_served: false, clients, queries });
        }
        let former = self.resolving.as_mut().and_then(|resolving| {
            resolving.is_served = true;
            resolving.waiting.replace(token)
        });
        former.into_iter().for_each(|former| self.close(former));
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.role = Role::WaitingForQuery;
        }
        Ok(())
    }

    /// Handles the end of such a connection, and so of the watcher that has made it: clients see the end of their
    /// connection instead of waiting for an answer.
    pub(super) fn dismiss_resolver(&mut self, token: Token) {
        let Some(resolving) = &mut self.resolving else { return };
        if resolving.waiting.take_if(|waiting| *waiting == token).is_some() {
            resolving.is_served = false;
            resolving.clients.clear();
        }
    }

    /// Accepts queries and clients, and joins one of them with the host's connection, if there are both.
    pub(super) fn resolve(&mut self) {
        let Some(resolving) = &mut self.resolving else { return };
        while let Some(client) = accept(&resolving.resolver.listener) {
            resolving.admit(client);
        }
        while let Some(datagram) = resolving.resolver.receive() {
            if !resolving.has_room() {
                continue;
            }
            let Some((stream, other)) = stream_with(&datagram.query) else { continue };
            let target = |token| Target::Query(token);
            let Ok(token) = self.poller.add(&stream, target) else { continue };
            let (query, client) = (datagram.query, datagram.client);
            resolving.queries.push(Query { token, stream, query, client, answer: Vec::new() });
            resolving.clients.push_back(other);
        }
        if resolving.waiting.is_some()
            && let Some(client) = resolving.clients.pop_front()
            && let Some(token) = resolving.waiting.take()
            && let Some(host) = self.connections.remove(&token)
        {
            self.poller.remove(&host, token);
            self.join_client(host, token, client, None);
        }
    }

    /// Passes on the answer to a datagram, once it is complete.
    pub(super) fn answer_query(&mut self, token: Token) {
        let Some(resolving) = &mut self.resolving else { return };
        let Some(index) = resolving.queries.iter().position(|query| query.token == token) else { return };
        if !resolving.queries[index].read() {
            return;
        }
        let Query { query, client, mut answer, .. } = resolving.queries.swap_remove(index);
        self.poller.forget(token);
        let length = answer.first_chunk().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
        // Without an answer the client asks again.
        if length >= HEADER && answer.len() == LENGTH + length {
            answer.drain(..LENGTH);
            resolving.resolver.send(&fit(&query, answer), client);
        }
    }
}

/// Shortest message (RFC 1035, 4.1.1), in bytes.
const HEADER: usize = 12;

impl Resolving {
    fn has_room(&self) -> bool {
        self.is_served && self.clients.len() < MAX_WAITING && self.queries.len() < MAX_WAITING
    }

    fn admit(&mut self, client: OwnedFd) {
        if self.has_room() {
            self.clients.push_back(client);
        }
    }
}

impl Query {
    /// Reads the bytes of the answer that have come; true when it is complete, or no more bytes will come.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match read(&self.stream, &mut bytes) {
                Ok(0) => return true,
                Ok(count) => self.answer.extend(&bytes[..count]),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return false,
                Err(_) => return true,
            }
            let length = self.answer.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
            if length.is_some_and(|length| self.answer.len() >= LENGTH + length) {
                return true;
            }
        }
    }
}

/// A pair of connected sockets: the query is in the first, and can be read from the second as from TCP.
fn stream_with(query: &[u8]) -> Option<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (stream, other) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).ok()?;
    let mut message = u16::try_from(query.len()).ok()?.to_be_bytes().to_vec();
    message.extend(query);
    // A new socket has room for the longest datagram; otherwise the query is lost, as datagrams may be.
    (write(&stream, &message) == Ok(message.len())).then_some((stream, other))
}
