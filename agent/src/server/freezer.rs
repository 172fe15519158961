//! Freezing and thawing: the kernel is asked, and the host is answered when the kernel says that it is done.

use stockade_protocol::agent::Response;

use super::{Server, Target};
use crate::{
    container::{Container, Freezing},
    error::{ErrorKind, Result, error},
    poller::Token,
};

impl Server {
    /// Begins to freeze or thaw a container; `reply_to` is answered when it is done.
    pub(super) fn begin_freezing(&mut self, reply_to: Token, id: &str, frozen: bool) -> Result<()> {
        let Some(container) = self.containers.get_mut(id) else { return Ok(()) };
        if container.freezing.is_some() || container.removal.is_some() {
            let message = format!("container {id} is being paused, resumed or deleted already");
            return Err(error(ErrorKind::WrongState, message));
        }
        // Watched before it changes, so that no change is missed.
        let events = container.cgroup.events()?;
        let token = self.poller.add(&events, |_| Target::Cgroup(container.init.clone()))?;
        if let Err(error) = container.cgroup.freeze(frozen) {
            self.poller.forget(token);
            return Err(error);
        }
        container.freezing = Some(Freezing { reply_to, frozen, events: (events, token) });
        self.finish_freezing(id);
        Ok(())
    }

    /// Answers the waiting connection if all processes of the container are frozen or thawed as asked.
    pub(super) fn finish_freezing(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let done = container.freezing.take_if(|freezing| container.cgroup.is_frozen() == freezing.frozen);
        let Some(Freezing { reply_to, frozen, events: (_, token) }) = done else { return };
        container.frozen = frozen;
        self.poller.forget(token);
        self.respond(reply_to, if frozen { Response::Paused } else { Response::Resumed });
    }

    /// Answers the waiting connection that freezing or thawing has failed, for this reason.
    pub(super) fn abort_freezing(&mut self, id: &str, reason: impl FnOnce() -> String) {
        let freezing = self.containers.get_mut(id).and_then(|container| container.freezing.take());
        let Some(freezing) = freezing else { return };
        self.poller.forget(freezing.events.1);
        self.respond(freezing.reply_to, Response::Error(error(ErrorKind::NoProcess, reason())));
    }

    /// Whether this connection waits for a container to be frozen or thawed.
    pub(super) fn is_freezing_for(&self, connection: Token) -> bool {
        let freezing = |container: &Container| container.freezing.as_ref().map(|freezing| freezing.reply_to);
        self.containers.values().any(|container| freezing(container) == Some(connection))
    }

    /// Restores the former state, because nobody waits any more: it took too long.
    pub(super) fn abandon_freezing(&mut self, reply_to: Token) {
        for container in self.containers.values_mut() {
            let abandoned = container.freezing.take_if(|freezing| freezing.reply_to == reply_to);
            let Some(freezing) = abandoned else { continue };
            self.poller.forget(freezing.events.1);
            if let Err(error) = container.cgroup.freeze(!freezing.frozen) {
                eprintln!("stockade-agent: {}", error.message);
            }
        }
    }
}
