//! `Request::Delete`, and removal after a failed Create: kills the container, waits until all of it is gone, forgets
//! it.

use std::rc::Rc;

use stockade_protocol::agent::{ProcessEvent, ProcessId, Response};

use super::{Server, Target};
use crate::{
    container::Removal,
    error::{ErrorKind, Result, error},
    poller::Token,
    process::Phase,
};

impl Server {
    /// Begins to delete a container.
    pub(super) fn delete(&mut self, reply_to: Token, id: &str) -> Result<Option<Response>> {
        let container = self.container(id)?;
        if container.removal.is_some() {
            return Err(error(ErrorKind::WrongState, format!("container {id} is being deleted already")));
        }
        let init = container.init.clone();
        if let Some(Phase::Creating(waiting) | Phase::Starting(waiting)) =
            self.processes.get(&init).map(|init| init.phase)
        {
            let message = format!("container {id} was deleted meanwhile");
            self.respond(waiting, Response::Error(error(ErrorKind::WrongState, message)));
        }
        self.abort_freezing(id, || format!("container {id} was deleted meanwhile"));
        self.begin_removal(id, reply_to, Response::Deleted);
        Ok(None)
    }

    /// Kills a container; `reply_to` gets `response` when it is gone.
    pub(super) fn begin_removal(&mut self, id: &str, reply_to: Token, response: Response) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Some(channel) = self.processes.get_mut(&container.init).and_then(|init| init.channel.take()) {
            self.poller.forget(channel.token);
        }
        let killed = container.cgroup.kill().and_then(|()| container.cgroup.events()).and_then(|events| {
            let token = self.poller.add(&events, |_| Target::Cgroup(container.init.clone()))?;
            Ok((events, token))
        });
        let events = match killed {
            Ok(watched) => Some(watched),
            Err(error) => {
                eprintln!("stockade-agent: {}", error.message);
                None
            }
        };
        container.removal = Some(Removal { reply_to, response, events });
        self.finish_removal(id);
    }

    /// Forgets a container that is being removed, if nothing of it is left.
    pub(super) fn finish_removal(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        let mut processes = self.processes.iter().filter(|(process, _)| process.container == id);
        let reaped = processes.all(|(_, process)| process.exit().is_some());
        if container.removal.is_none() || !reaped || !container.cgroup.remove() || !self.disks_are_free(id) {
            return;
        }
        let Some(container) = self.containers.remove(id) else { return };
        let processes: Vec<Rc<ProcessId>> =
            self.processes.keys().filter(|process| process.container == id).cloned().collect();
        for id in processes {
            let Some(process) = self.forget_process(&id) else { continue };
            let connection = process.connection.and_then(|token| self.connections.get_mut(&token));
            if let (Some(status), Some(connection)) = (process.unreported_exit(), connection) {
                // A connection that cannot be written to reports its end to the loop.
                let _ = connection.send(&ProcessEvent::Ended(status));
            }
        }
        self.dismiss_all(container.audience);
        self.dismiss_clients(id, container.sockets);
        for (_, token) in container.atomic_volumes.due.iter().chain(&container.disks.due) {
            self.poller.forget(*token);
        }
        // The host may remove the disks when it is told of the end.
        drop(container.disks);
        if let Some(removal) = container.removal {
            if let Some((_, token)) = removal.events {
                self.poller.forget(token);
            }
            self.respond(removal.reply_to, removal.response);
        }
    }
}
