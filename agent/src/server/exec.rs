//! `Request::Exec`: clones another process of a container, or one beside the agent, which then waits.

use std::rc::Rc;

use stockade_protocol::agent::{Exec, GUEST, Response};

use super::Server;
use crate::{
    boot,
    cgroup::Cgroup,
    error::{ErrorKind, Result, error},
    init::{self, ForAll, Joined, Spawned},
    poller::Token,
    process::Phase,
};

/// Largest number of processes that the host may have at once in one guest: each has descriptors in the agent.
const MAX_PROCESSES: usize = 4096;

impl Server {
    /// Begins to make a process.
    pub(super) fn exec(&mut self, reply_to: Token, exec: Exec) -> Result<Option<Response>> {
        if exec.id.exec.is_none() {
            return Err(error(ErrorKind::Spec, "an exec needs a name"));
        }
        if self.processes.contains_key(&exec.id) {
            let message = format!("container {} has a process of this name already", exec.id.container);
            return Err(error(ErrorKind::Exists, message));
        }
        if self.processes.len() >= MAX_PROCESSES {
            return Err(error(
                ErrorKind::Internal,
                format!("the guest has {MAX_PROCESSES} processes already"),
            ));
        }
        let spawned = self.spawn_exec(reply_to, &exec)?;
        let id = Rc::new(exec.id);
        self.adopt(&id, spawned, reply_to);
        if let Some(process) = self.processes.get_mut(&id) {
            process.requester = Some(reply_to);
        }
        Ok(None)
    }

    fn spawn_exec(&mut self, reply_to: Token, exec: &Exec) -> Result<Spawned> {
        let id = &exec.id.container;
        if id == GUEST {
            boot::provide_devices()?;
            let cgroup = Cgroup::root().open()?;
            return init::spawn_exec(&exec.process, ForAll::default(), &Joined::default(), &cgroup);
        }
        let (phase, init) = (self.phase(id)?, self.container(id)?.init.clone());
        let init = self.process(&init)?.1.pid;
        let confinement = self.take_confinement(reply_to, &exec.id);
        let container = self.container(id)?;
        if container.removal.is_some() || matches!(phase, Phase::Creating(_) | Phase::Stopped(_)) {
            return Err(error(ErrorKind::WrongState, format!("container {id} is not running")));
        }
        if container.is_paused() && !exec.ignore_paused {
            return Err(error(ErrorKind::WrongState, format!("container {id} is paused")));
        }
        let cgroup = match &exec.cgroup {
            Some(path) if path.is_empty() => container.cgroup.open()?,
            Some(path) => container.cgroup.below(path)?,
            None => container.cgroup.open_beside(init)?,
        };
        let joined = Joined::all_of(init, &container.namespaces);
        let for_all = ForAll { confinement: confinement.as_ref(), ..container.for_all() };
        init::spawn_exec(&exec.process, for_all, &joined, &cgroup)
    }
}
