//! A container: what its processes share. How far it is, its init says ([`crate::process`]).
//!
//! A created or running container may be frozen, which changes nothing about how far it is.
//!
//! A removal, asked for by Delete or by a Create that has failed, waits until every process of it that the host
//! knows is reaped and the cgroup is empty.

use std::{fs::File, rc::Rc};

use stockade_protocol::{
    agent::{ProcessId, Response},
    container::{DeviceRule, IdMappings, MemoryPolicy, Namespaces, SeccompFilter},
};

use crate::{
    atomic_volumes::AtomicVolumes, cgroup::Cgroup, disks::Disks, init::ForAll, memory::Tmpfs, poller::Token,
    sockets::Sockets,
};

/// One container.
#[derive(Debug)]
pub struct Container {
    /// Names its init.
    pub init: Rc<ProcessId>,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// Its device rules, which are put in force when it is built.
    pub device_rules: Vec<DeviceRule>,
    /// The seccomp filters of its processes.
    pub seccomp: Vec<SeccompFilter>,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// The IDs of its user namespace, if it has one.
    pub id_mappings: Option<IdMappings>,
    /// The execution domain of its processes.
    pub personality: Option<u32>,
    /// The memory policy of its processes.
    pub memory_policy: Option<MemoryPolicy>,
    /// Its processes are frozen.
    pub frozen: bool,
    /// Set while they are being frozen or thawed.
    pub freezing: Option<Freezing>,
    /// Its disks.
    pub disks: Disks,
    /// Its file systems whose size follows the memory.
    pub tmpfs: Tmpfs,
    /// What it has copies of.
    pub atomic_volumes: AtomicVolumes,
    /// Its sockets that stand for the host's.
    pub sockets: Sockets,
    /// Who is told what happens to it.
    pub audience: Audience,
    /// Set once it is to go.
    pub removal: Option<Removal>,
}

impl Container {
    /// What holds for every process of it; the AppArmor profile is each one's own.
    pub fn for_all(&self) -> ForAll<'_> {
        ForAll {
            seccomp: &self.seccomp,
            personality: self.personality,
            memory_policy: self.memory_policy.as_ref(),
            ids: self.id_mappings.as_ref(),
            apparmor: None,
        }
    }

    /// Whether its processes are frozen, or are about to be or not to be.
    pub fn is_paused(&self) -> bool {
        self.frozen || self.freezing.is_some()
    }
}

/// A freezing or thawing under way.
#[derive(Debug)]
pub struct Freezing {
    /// The connection that waits for its end.
    pub reply_to: Token,
    /// Which of the two.
    pub frozen: bool,
    /// The cgroup's events and their registration.
    pub events: (File, Token),
}

/// The Events connections of a container.
#[derive(Debug, Default)]
pub struct Audience {
    /// The connections.
    pub connections: Vec<Token>,
    /// What they have been told: processes killed for want of memory.
    pub oom_kills: u64,
    /// The cgroup's memory events and their registration, while there are connections.
    pub events: Option<(File, Token)>,
}

/// A removal under way.
#[derive(Debug)]
pub struct Removal {
    /// The connection that waits for its end.
    pub reply_to: Token,
    /// What it is told then.
    pub response: Response,
    /// The cgroup's events and their registration.
    pub events: Option<(File, Token)>,
}
