//! `Request::Create`: clones the container's init, which builds the container from inside and then waits.

use std::rc::Rc;

use stockade_protocol::{
    agent::{MAX_CONTAINERS, ProcessId, Response},
    container,
};

use super::{Server, audit};
use crate::{
    atomic_volumes::AtomicVolumes,
    cgroup::Cgroup,
    container::{Audience, Container},
    disks::Disks,
    error::{AgentError, ErrorKind, Result, error},
    init::{self, Joined},
    memory::Tmpfs,
    poller::Token,
    process::Phase,
    selinux,
    sockets::Sockets,
};

/// The bit of CAP_NET_ADMIN, with which a container can set up connection tracking.
const CAP_NET_ADMIN: u64 = 1 << 12;

impl Server {
    /// Begins to build a container.
    pub(super) fn create(
        &mut self,
        reply_to: Token,
        mut spec: container::Container,
    ) -> Result<Option<Response>> {
        if self.containers.contains_key(&spec.id) {
            return Err(error(
                ErrorKind::Exists,
                format!("container {} exists already in the guest", spec.id),
            ));
        }
        if self.containers.len() >= MAX_CONTAINERS {
            return Err(error(
                ErrorKind::Internal,
                format!("the guest has {MAX_CONTAINERS} containers already"),
            ));
        }
        let joined = self.joined_namespaces(&spec.namespaces)?;
        let disks = Disks::attach(&mut spec)?;
        let init = Rc::new(ProcessId { container: spec.id.clone(), exec: None });
        let confinement = self.take_confinement(reply_to, &init);
        if let Some(label) = confinement.as_ref().and_then(|confinement| confinement.mount_label.as_deref()) {
            selinux::label_mounts(&mut spec.mounts, label);
        }
        let tmpfs = Tmpfs::of(&spec.mounts);
        if spec.process.capabilities.is_none_or(|sets| sets.bounding & CAP_NET_ADMIN != 0) {
            self.memory.track_connections();
        }
        let atomic_volumes = AtomicVolumes::make(&spec.mounts);
        let mut sockets = Sockets::make(&spec.id, &spec.mounts)?;
        let cgroup = Cgroup::create(&spec.cgroup)?;
        let given = spec.cgroup_owner.map_or(Ok(()), |owner| cgroup.give_to(owner));
        let directory = given.and_then(|()| cgroup.open());
        audit::show_on_console(&spec.seccomp);
        let ready =
            directory.and_then(|directory| self.watch_sockets(&init, &mut sockets).map(|()| directory));
        let spawned = match ready
            .and_then(|directory| init::spawn_init(&spec, confinement.as_ref(), &joined, &directory))
        {
            Ok(spawned) => spawned,
            Err(error) => {
                self.dismiss_clients(&spec.id, sockets);
                cgroup.remove();
                return Err(error);
            }
        };
        let container = Container {
            init: init.clone(),
            cgroup,
            device_rules: spec.cgroup.devices,
            seccomp: spec.seccomp,
            namespaces: spec.namespaces,
            id_mappings: spec.id_mappings,
            personality: spec.personality,
            memory_policy: spec.memory_policy,
            frozen: false,
            freezing: None,
            disks,
            tmpfs,
            atomic_volumes,
            sockets,
            audience: Audience::default(),
            removal: None,
        };
        self.containers.insert(spec.id, container);
        self.adopt(&init, spawned, reply_to);
        Ok(None)
    }

    /// Applies the settings that would have prevented building the container.
    pub(super) fn finish_container(&mut self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        container.cgroup.restrict_devices(&container.device_rules)
    }

    /// Removes a container that could not be built, and then answers with the reason.
    pub(super) fn fail_container(&mut self, id: &Rc<ProcessId>, error: AgentError) {
        if let Some(Phase::Creating(reply_to)) = self.processes.get(id).map(|init| init.phase) {
            self.begin_removal(&id.container, reply_to, Response::Error(error));
        }
    }

    fn joined_namespaces(&self, namespaces: &container::Namespaces) -> Result<Joined> {
        Joined::resolve(namespaces, |id| {
            let init = self.containers.get(id).map(|container| &container.init);
            let process = init.and_then(|init| self.processes.get(init));
            process.filter(|process| process.exit().is_none()).map(|process| process.pid)
        })
    }
}
