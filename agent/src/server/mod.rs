//! The event loop and its state.
//!
//! Each kind of event has its file: [`connections`] (who talks to the agent), [`processes`] (streams and
//! ends), [`reports`] (what comes before a program), [`freezer`] (what Pause and Resume share), [`events`] and
//! [`notify`] (what the host is told unasked), [`atomic_volumes`] (what follows the host's files), [`forward`] (connections to the
//! guest's ports), [`sockets`] (connections to the host's sockets), [`resolver`] (queries to the host's resolver); every request has one of its own name.

use std::{collections::BTreeMap, convert::Infallible, mem, os::fd::OwnedFd, rc::Rc};

use nix::sys::signalfd::SignalFd;
use stockade_protocol::{
    agent::{ProcessId, Request, Response, Stream},
    settings::Confinement,
};

use crate::{
    connection::Connection,
    container::Container,
    error::{ErrorKind, Result, error},
    memory::Follower,
    poller::{Poller, Token},
    process::{Phase, Process},
    reaper,
};

mod atomic_volumes;
mod audit;
mod cgroup_files;
mod confine;
mod connections;
mod create;
mod delete;
mod disks;
mod events;
mod exec;
mod forward;
mod freezer;
mod list_containers;
mod list_processes;
mod memory;
mod network;
mod notify;
mod pause;
mod processes;
mod proxy;
mod reports;
mod resolver;
mod resume;
mod set_cpus;
mod settings;
mod signal;
mod sockets;
mod start;
mod state;
mod update;

use forward::Forward;
use resolver::Resolving;

/// The object of an event.
#[derive(Clone, Debug)]
enum Target {
    /// The host connects.
    Listener,
    /// A child has ended.
    Children,
    /// A connection has bytes, or room for some.
    Connection(Token),
    /// A process that has not executed its program yet reports.
    Report(Rc<ProcessId>),
    /// A stream has bytes, or room for some.
    Stream(Rc<ProcessId>, Stream),
    /// A container has sent something to its sd_notify(3) socket.
    Notify(Rc<ProcessId>),
    /// The last process has left a container's cgroup, or all in it are frozen or thawed.
    Cgroup(Rc<ProcessId>),
    /// A container has reached its memory limit.
    Memory(Rc<ProcessId>),
    /// A forwarded connection has bytes, or room for some.
    Forward(Token),
    /// A client has come to a socket of this init's container.
    Socket(Rc<ProcessId>, u16),
    /// Containers ask the host's resolver.
    Resolver,
    /// An answer of the resolver has come.
    Query(Token),
    /// It is time to check whether the disks of this init's container are free.
    Disks(Rc<ProcessId>),
    /// It is time to refresh the copies of this init's container.
    AtomicVolumes(Rc<ProcessId>),
    /// The kernel has sent events, which may be about memory.
    KernelEvents,
    /// Memory has come or gone, and has been unchanged for a while.
    MemorySettled,
}

/// The state of the agent.
pub struct Server {
    poller: Poller<Target>,
    listener: OwnedFd,
    children: SignalFd,
    connections: BTreeMap<Token, Connection>,
    containers: BTreeMap<String, Container>,
    processes: BTreeMap<Rc<ProcessId>, Process>,
    forwards: BTreeMap<Token, Forward>,
    /// Set once the host has offered its resolver.
    resolving: Option<Resolving>,
    memory: Follower,
    /// What security modules apply to the process that a connection is about to have made.
    confinements: BTreeMap<Token, (ProcessId, Confinement)>,
    /// The AppArmor profiles that the kernel has, with a hash of the policy that each has come from.
    policies: BTreeMap<String, u64>,
    /// Targets to handle again although no event will come.
    again: Vec<Target>,
}

impl Server {
    /// A server without containers.
    pub fn new(listener: OwnedFd) -> Result<Self> {
        let mut poller = Poller::new()?;
        let children = reaper::watch()?;
        poller.add_listener(&listener, Target::Listener)?;
        poller.add(&children, |_| Target::Children)?;
        let mut server = Self {
            poller,
            listener,
            children,
            connections: BTreeMap::new(),
            containers: BTreeMap::new(),
            processes: BTreeMap::new(),
            forwards: BTreeMap::new(),
            resolving: None,
            memory: Follower::new()?,
            confinements: BTreeMap::new(),
            policies: BTreeMap::new(),
            again: Vec::new(),
        };
        server.watch_memory()?;
        Ok(server)
    }

    /// Serves until the guest ends.
    pub fn run(mut self) -> Result<Infallible> {
        loop {
            let mut targets = mem::take(&mut self.again);
            targets.extend(self.poller.wait(!targets.is_empty())?);
            for target in targets {
                self.handle(target);
            }
        }
    }

    fn handle(&mut self, target: Target) {
        match target {
            Target::Listener => self.accept(),
            Target::Children => self.reap(),
            Target::Connection(token) => self.serve_connection(token),
            Target::Report(id) => self.hear(&id),
            Target::Stream(id, stream) => self.run_stream(&id, stream),
            Target::Notify(id) => self.pass_notifications_on(&id),
            Target::Cgroup(id) => {
                self.finish_freezing(&id.container);
                self.finish_removal(&id.container);
            }
            Target::Memory(id) => self.report_oom(&id.container),
            Target::Forward(token) => self.run_forward(token),
            Target::Socket(id, number) => self.serve_client(&id, number),
            Target::Resolver => self.resolve(),
            Target::Query(token) => self.answer_query(token),
            Target::Disks(id) => self.look_at_disks(&id),
            Target::AtomicVolumes(id) => self.refresh_atomic_volumes(&id.container),
            Target::KernelEvents => self.memory.hear(),
            Target::MemorySettled => self.follow_memory(),
        }
    }

    /// Handles a request; its response follows at once or later.
    fn serve_request(&mut self, token: Token, request: Request) {
        let result = match request {
            Request::Create(container) => self.create(token, *container),
            Request::Exec(exec) => self.exec(token, *exec),
            Request::Start(id) => self.start(token, &id),
            Request::Signal { container, signal, all } => self.signal(&container, signal, all).map(Some),
            Request::State { container } => self.state(&container).map(Some),
            Request::Delete { container } => self.delete(token, &container),
            Request::Pause { container } => self.pause(token, &container),
            Request::Resume { container } => self.resume(token, &container),
            Request::Processes { container } => self.list_processes(&container).map(Some),
            Request::CgroupFiles { container } => self.cgroup_files(&container).map(Some),
            Request::Containers => Ok(Some(self.list_containers())),
            Request::SetCpus { count } => Self::set_cpus(count).map(Some),
            Request::Update { container, values } => self.update(&container, &values).map(Some),
            Request::Network(change) => Self::change_network(&change).map(Some),
            Request::Confine { process, confinement } => self.confine(token, process, *confinement).map(Some),
            Request::Selinux(policy) => self.load_selinux(&policy).map(Some),
            Request::Settings(settings) => self.take_settings(&settings).map(Some),
        };
        match result {
            Ok(None) => {}
            Ok(Some(response)) => self.respond(token, response),
            Err(error) => self.respond(token, Response::Error(error)),
        }
    }

    fn container(&mut self, id: &str) -> Result<&mut Container> {
        self.containers
            .get_mut(id)
            .ok_or_else(|| error(ErrorKind::NotFound, format!("container {id} does not exist in the guest")))
    }

    /// The phase of a container, which is that of its init.
    fn phase(&mut self, id: &str) -> Result<Phase> {
        let init = self.container(id)?.init.clone();
        self.process(&init).map(|(_, init)| init.phase)
    }
}

#[cfg(test)]
#[path = "mod_test.rs"]
mod tests;
