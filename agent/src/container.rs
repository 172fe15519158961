//! A container: what its processes share. Its init's phase is the container's ([`crate::process`]).
//!
//! A created or running container may be frozen, which does not change its phase.
//!
//! A removal, asked for by Delete or by a Create that has failed, waits until all its processes that the host knows are
//! reaped and the cgroup is empty.

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
    /// Whether its processes are frozen.
    pub frozen: bool,
    /// Set while they are being frozen or thawed.
    pub freezing: Option<Freezing>,
    /// Its disks.
    pub disks: Disks,
    /// Its file systems whose size follows the memory.
    pub tmpfs: Tmpfs,
    /// The directories of which it has copies.
    pub atomic_volumes: AtomicVolumes,
    /// Its sockets that stand for the host's.
    pub sockets: Sockets,
    /// The connections that get its events.
    pub audience: Audience,
    /// The removal, once it has begun.
    pub removal: Option<Removal>,
}

impl Container {
    /// The settings for every process of it; each has its own confinement.
    pub fn for_all(&self) -> ForAll<'_> {
        ForAll {
            seccomp: &self.seccomp,
            personality: self.personality,
            memory_policy: self.memory_policy.as_ref(),
            ids: self.id_mappings.as_ref(),
            confinement: None,
        }
    }

    /// Whether its processes are frozen, or are being frozen or thawed.
    pub fn is_paused(&self) -> bool {
        self.frozen || self.freezing.is_some()
    }
}

/// A freezing or thawing under way.
#[derive(Debug)]
pub struct Freezing {
    /// The connection that waits for its end.
    pub reply_to: Token,
    /// Whether the processes are being frozen; otherwise they are being thawed.
    pub frozen: bool,
    /// The cgroup's events and their registration.
    pub events: (File, Token),
}

/// The Events connections of a container.
#[derive(Debug, Default)]
pub struct Audience {
    /// The connections.
    pub connections: Vec<Token>,
    /// Number of processes killed for want of memory that was reported to them.
    pub oom_kills: u64,
    /// The cgroup's memory events and their registration, while there are connections.
    pub events: Option<(File, Token)>,
}

/// A removal under way.
#[derive(Debug)]
pub struct Removal {
    /// The connection that waits for its end.
    pub reply_to: Token,
    /// The response that it then gets.
    pub response: Response,
    /// The cgroup's events and their registration.
    pub events: Option<(File, Token)>,
}
