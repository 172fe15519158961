//! Clients of a container's sockets: each goes to a connection of the host that waits for it.

use std::rc::Rc;

use stockade_protocol::agent::ProcessId;

use super::{Server, Target};
use crate::{
    connection::Role,
    error::{ErrorKind, Result, error},
    poller::Token,
    sockets::{Sockets, accept},
};

impl Server {
    /// Watches a container's sockets for clients from now on.
    pub(super) fn watch_sockets(&mut self, init: &Rc<ProcessId>, sockets: &mut Sockets) -> Result<()> {
        sockets.iter_mut().try_for_each(|socket| {
            let target = Target::Socket(init.clone(), socket.number);
            socket.token = Some(self.poller.add(&socket.listener, |_| target)?);
            Ok(())
        })
    }

    /// Forgets a container's sockets, and closes connections that wait for their clients or belong to them.
    pub(super) fn dismiss_clients(&mut self, id: &str, mut sockets: Sockets) {
        for socket in sockets.iter_mut() {
            socket.token.into_iter().for_each(|token| self.poller.forget(token));
            socket.waiting.into_iter().for_each(|token| self.close(token));
        }
        self.end_clients(id);
    }

    /// Lets a connection of the host wait for the next client of a socket.
    pub(super) fn admit_host(&mut self, token: Token, id: &str, number: u16) -> Result<Rc<ProcessId>> {
        let container = self.container(id)?;
        let init = container.init.clone();
        let socket = container.sockets.get_mut(number).ok_or_else(|| {
            error(ErrorKind::NotFound, format!("container {id} has no socket {number} of the host"))
        })?;
        // The process on the host with the former connection has ended, or does not need it any more.
        if let Some(former) = socket.waiting.replace(token) {
            self.close(former);
        }
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.role = Role::Waiting(init.clone(), number);
        }
        Ok(init)
    }

    /// Handles the end of such a connection.
    pub(super) fn dismiss_host(&mut self, init: &Rc<ProcessId>, number: u16, token: Token) {
        let container = self.containers.get_mut(&init.container);
        if let Some(socket) = container.and_then(|container| container.sockets.get_mut(number)) {
            socket.waiting.take_if(|waiting| *waiting == token);
        }
    }

    /// Joins a client and the host's connection, if there are both.
    pub(super) fn serve_client(&mut self, init: &Rc<ProcessId>, number: u16) {
        let container = self.containers.get_mut(&init.container);
        let socket = container.and_then(|container| container.sockets.get_mut(number));
        let Some(socket) = socket.filter(|socket| socket.waiting.is_some()) else { return };
        let Some(client) = accept(&socket.listener) else { return };
        let host = socket.waiting.take().and_then(|token| Some((token, self.connections.remove(&token)?)));
        if let Some((token, host)) = host {
            self.poller.remove(&host, token);
            self.join_client(host, token, client, Some(init.clone()));
        }
    }
}

#[cfg(test)]
#[path = "sockets_test.rs"]
mod tests;
