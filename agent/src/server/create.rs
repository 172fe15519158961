//! `Request::Create`: clones the container's init, which builds the container from inside and then waits.

use std::{os::fd::OwnedFd, rc::Rc};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use stockade_protocol::{
    agent::{ProcessId, Response},
    container,
};

use super::{MOST_CONTAINERS, Server, Target};
use crate::{
    cgroup::Cgroup,
    container::{Audience, Channel, Container, Phase},
    error::{AgentError, Context, ErrorKind, Result, error},
    init::{self, Joined, Report},
    poller::Token,
    process::Process,
    stdio::Stdio,
};

impl Server {
    /// Begins to build a container.
    pub(super) fn create(&mut self, reply_to: Token, spec: container::Container) -> Result<Option<Response>> {
        if self.containers.contains_key(&spec.id) {
            return Err(error(
                ErrorKind::Exists,
                format!("container {} exists already in the guest", spec.id),
            ));
        }
        if self.containers.len() >= MOST_CONTAINERS {
            return Err(error(
                ErrorKind::Internal,
                format!("the guest has {MOST_CONTAINERS} containers already"),
            ));
        }
        let joined = self.joined_namespaces(&spec.namespaces)?;
        let cgroup = Cgroup::create(&spec.cgroup)?;
        let (process, channel) = match self.spawn_init(&spec, &joined, &cgroup) {
            Ok(spawned) => spawned,
            Err(error) => {
                cgroup.remove();
                return Err(error);
            }
        };
        let id = Rc::new(ProcessId { container: spec.id.clone(), exec: None });
        let token = self.poller.add(&channel, |_| Target::Init(id.clone()));
        let container = Container {
            init: id.clone(),
            cgroup,
            device_rules: spec.cgroup.devices,
            phase: Phase::Creating(reply_to),
            channel: None,
            frozen: false,
            freezing: None,
            audience: Audience::default(),
            removal: None,
        };
        self.processes.insert(id.clone(), process);
        let container = self.containers.entry(spec.id).or_insert(container);
        match token {
            Ok(token) => container.channel = Some(Channel { socket: channel, token }),
            // Unheard, the init ends: its channel closes here.
            Err(error) => self.fail_creation(&id.container, error),
        }
        Ok(None)
    }

    fn spawn_init(
        &self,
        spec: &container::Container,
        joined: &Joined,
        cgroup: &Cgroup,
    ) -> Result<(Process, OwnedFd)> {
        let (stdio, pipes) = match spec.process.terminal {
            Some(_) => (Stdio::default(), None),
            None => {
                let (stdio, pipes) = Stdio::pipes(spec.process.user.uid)?;
                (stdio, Some(pipes))
            }
        };
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .or_internal(|| "make a socket pair".to_owned())?;
        let pid = init::spawn(spec, joined, &cgroup.open()?, theirs, pipes)?;
        Ok((Process::new(pid, stdio), ours))
    }

    /// Takes what a container's init has to say.
    pub(super) fn hear_init(&mut self, id: &Rc<ProcessId>) {
        let Some(container) = self.containers.get_mut(&id.container) else { return };
        let Some(channel) = &container.channel else { return };
        let report = match init::hear(&channel.socket) {
            Report::None => return,
            report => report,
        };
        let phase = container.phase;
        if !matches!(report, Report::Built { .. })
            && let Some(channel) = container.channel.take()
        {
            self.poller.forget(channel.token);
        }
        match (phase, report) {
            (Phase::Creating(reply_to), Report::Built { warnings, terminal }) => {
                self.finish_creation(id, reply_to, warnings, terminal);
            }
            (Phase::Creating(_), Report::Failed(error)) => self.fail_creation(&id.container, error),
            (Phase::Creating(_), Report::Closed) => {
                let message = "the container's init was killed while it built the container, which happens \
                               when the container's memory limit is too small for that";
                self.fail_creation(&id.container, error(ErrorKind::Internal, message));
            }
            (Phase::Starting(reply_to), report) => self.finish_start(id, reply_to, report),
            // It was killed before its start.
            _ => {}
        }
    }

    fn finish_creation(
        &mut self,
        id: &Rc<ProcessId>,
        reply_to: Token,
        warnings: Vec<String>,
        terminal: Option<OwnedFd>,
    ) {
        let Some(process) = self.processes.get_mut(id) else { return };
        let guest_pid = process.pid.as_raw() as u32;
        if let Some(master) = terminal {
            match Stdio::terminal(master) {
                Ok(stdio) => process.stdio = stdio,
                Err(error) => return self.fail_creation(&id.container, error),
            }
        }
        let Some(container) = self.containers.get_mut(&id.container) else { return };
        if let Err(error) = container.cgroup.restrict_devices(&container.device_rules) {
            return self.fail_creation(&id.container, error);
        }
        container.phase = Phase::Created;
        self.respond(reply_to, Response::Created { guest_pid, warnings });
    }

    /// Undoes what there is of a container, and only then says why.
    fn fail_creation(&mut self, id: &str, error: AgentError) {
        let Some(container) = self.containers.get(id) else { return };
        if let Phase::Creating(reply_to) = container.phase {
            self.begin_removal(id, reply_to, Response::Error(error));
        }
    }

    fn joined_namespaces(&self, namespaces: &container::Namespaces) -> Result<Joined> {
        Joined::resolve(namespaces, |id| {
            let init = self.containers.get(id).map(|container| &container.init);
            let process = init.and_then(|init| self.processes.get(init));
            process.filter(|process| process.exit.is_none()).map(|process| process.pid)
        })
    }
}
