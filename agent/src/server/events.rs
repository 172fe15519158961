//! Events connections: the host is told when the kernel has killed processes of a container for want of memory.

use std::rc::Rc;

use stockade_protocol::agent::{ContainerEvent, ProcessId};

use super::{Server, Target};
use crate::{
    container::{Audience, Container},
    error::Result,
    poller::Token,
};

impl Server {
    /// Sends a connection the events of a container from now on; returns the container's init.
    pub(super) fn admit(&mut self, id: &str, connection: Token) -> Result<Rc<ProcessId>> {
        // Earlier events are only for connections that exist already.
        self.report_oom(id);
        let init = self.container(id)?.init.clone();
        let Some(Container { audience, cgroup, .. }) = self.containers.get_mut(id) else { return Ok(init) };
        if audience.events.is_none() {
            let events = cgroup.memory_events()?;
            let token = self.poller.add(&events, |_| Target::Memory(init.clone()))?;
            audience.oom_kills = cgroup.oom_kills();
            audience.events = Some((events, token));
        }
        audience.connections.push(connection);
        Ok(init)
    }

    /// Reports kills to a container's audience that were not reported yet.
    pub(super) fn report_oom(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.audience.events.is_none() {
            return;
        }
        let total = container.cgroup.oom_kills();
        let kills = total.saturating_sub(container.audience.oom_kills);
        if kills == 0 {
            return;
        }
        container.audience.oom_kills = total;
        for token in &container.audience.connections {
            if let Some(connection) = self.connections.get_mut(token) {
                // A connection that cannot be written to reports its end to the loop.
                let _ = connection.send(&ContainerEvent::OutOfMemory { kills });
            }
        }
    }

    /// Removes a connection that has ended from the audience.
    pub(super) fn dismiss(&mut self, id: &Rc<ProcessId>, connection: Token) {
        let Some(container) = self.containers.get_mut(&id.container) else { return };
        let audience = &mut container.audience;
        audience.connections.retain(|token| *token != connection);
        if audience.connections.is_empty()
            && let Some((_, token)) = audience.events.take()
        {
            self.poller.forget(token);
        }
    }

    /// Closes the connections of the audience, because the container is forgotten.
    pub(super) fn dismiss_all(&mut self, audience: Audience) {
        if let Some((_, token)) = audience.events {
            self.poller.forget(token);
        }
        audience.connections.into_iter().for_each(|connection| self.close(connection));
    }
}
