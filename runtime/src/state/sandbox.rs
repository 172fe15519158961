//! Which VM a container belongs to: one of its own, or that of its pod's sandbox.
//!
//! Callers say it in two ways: by annotations ([`Role`]), or by the path of a namespace that belongs to another
//! container. Every container can be joined later, because podman's infra containers carry no annotation.
//!
//! If the network namespace has a path, which it always has with CRI-O and containerd, it has to confirm what
//! annotations say, because only the engine chooses it. So the author of a pod, who can make CRI-O write any
//! annotation, cannot get into another pod's VM; and a container that is annotated as a sandbox never joins a VM.
//!
//! A namespace is identified by its nsfs inode, under every path, for as long as it lives: when it has gone, another
//! namespace may get the number. A relay's own namespaces stand for those of its container in the guest; one that a
//! container's config.json named (CRI-O pins them below /var/run) stands for that container's too.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::sys::stat::fstat;
use oci_spec::runtime::{LinuxNamespaceType as Type, Spec};

use super::directory::Root;
use super::error::ContainerError;
use super::known_namespace::{self, KnownNamespace, inode, of_process};
use super::record::{Record, SharesLabel};
use super::role::Role;
use crate::oci::bundle::{CONFIG, SpecError};
use crate::oci::container_id::ContainerId;
use crate::sys::namespace;

/// The kinds of namespaces by which a container is recognised, with their names in /proc/PID/ns.
const KINDS: [(Type, &str); 7] = [
    (Type::Pid, "pid"),
    (Type::Ipc, "ipc"),
    (Type::Uts, "uts"),
    (Type::Network, NETWORK),
    (Type::Cgroup, "cgroup"),
    (Type::Time, "time"),
    (Type::User, USER),
];

const USER: &str = "user";
const NETWORK: &str = "net";

/// The namespaces that a new container may ask to join, by the containers that have them.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// The sandbox whose VM the container joins; `None` gives it a VM of its own.
    pub sandbox: Option<ContainerId>,
    /// The volumes that its containers share already.
    pub volumes: Option<PodVolumes>,
    /// What the sandbox's VM has of SELinux.
    pub selinux: Option<SharesLabel>,
    known: HashMap<(String, u64), String>,
}

/// The volumes of a pod ([`crate::lower`] says which they are).
#[derive(Clone, Debug, Default)]
pub struct PodVolumes {
    /// Their directory in the VM's share: the sandbox's.
    pub directory: String,
    /// The volumes that a container writes to, by their names in that directory.
    pub writable: HashSet<String>,
}

/// What a namespace path means for a new container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A namespace of this container, in the same VM.
    Of(String),
    /// The runtime's own namespace, which is the host's.
    Host,
    /// A namespace of no container that stockade knows.
    Unknown,
}

impl Peers {
    /// Finds the sandbox of a new container, and the containers in it.
    ///
    /// # Errors
    /// When the annotations name a container that is not a sandbox, or when namespaces belong to another VM than the
    /// sandbox's.
    pub fn find(root: &Root, spec: &Spec) -> anyhow::Result<Self> {
        let role = Role::of(spec.annotations().as_ref()).context(CONFIG)?;
        let paths = namespace_paths(spec);
        if role == Role::Alone && paths.is_empty() {
            return Ok(Self::default());
        }
        let records = root.records();
        let given: Vec<_> = paths.into_iter().map(|(kind, path)| Given::new(kind, path, &records)).collect();
        let owned = || given.iter().filter_map(|given| Some((given, given.owner?)));
        let sandbox = match role {
            Role::Sandbox => {
                if let Some((given, owner)) = owned().next() {
                    anyhow::bail!(
                        "{CONFIG}: linux.namespaces: {} belongs to container {:?}, but annotations say that this is the \
                         sandbox of a pod, which joins no other container",
                        given.path.display(),
                        owner.id
                    );
                }
                None
            }
            Role::Member(id) => Some(named_sandbox(&records, id, &given)?),
            Role::Alone => owned().next().map(|(_, owner)| owner.vm().to_owned()),
        };
        let Some(sandbox) = sandbox else { return Ok(Self::default()) };
        if let Some((given, owner)) = owned().find(|(_, owner)| owner.vm() != sandbox) {
            anyhow::bail!(
                "{CONFIG}: linux.namespaces: {} belongs to container {:?}, which is in another VM than sandbox \
                 {sandbox:?}",
                given.path.display(),
                owner.id
            );
        }
        let mut known = HashMap::new();
        let mut volumes = None;
        let mut selinux = None;
        for record in records.iter().filter(|record| record.vm() == sandbox) {
            let pod: &mut PodVolumes = volumes.get_or_insert_default();
            if record.id == sandbox {
                pod.directory = record.share().to_owned();
                selinux.clone_from(&record.selinux);
            }
            if record.complete {
                pod.writable.extend(record.volumes.iter().cloned());
            }
            for namespace in living(record) {
                // For a shared namespace, the sandbox comes before its members.
                let key = (namespace.kind.clone(), namespace.inode);
                if record.sandbox.is_none() || !known.contains_key(&key) {
                    known.insert(key, record.id.clone());
                }
            }
        }
        // Without a sandbox there is no such directory; creating the container then fails with the reason.
        let volumes = volumes.filter(|pod| !pod.directory.is_empty());
        Ok(Self { sandbox: Some(sandbox.parse()?), volumes, selinux, known })
    }

    /// Finds the container whose namespace a path names.
    ///
    /// # Errors
    /// A [`SpecError`] where there is no namespace of this type at the path.
    pub fn named(&self, kind: Type, path: &Path, property: &str) -> Result<Named, SpecError> {
        let name = name_of(kind);
        let inode = namespace::inode(path, name).map_err(|cause| {
            SpecError::new(property, format!("cannot look at the namespace {}: {cause}", path.display()))
        })?;
        if let Some(owner) = self.known.get(&(name.to_owned(), inode)) {
            return Ok(Named::Of(owner.clone()));
        }
        let own = known_namespace::inode(Path::new(&format!("/proc/self/ns/{name}")));
        Ok(if own.is_ok_and(|own| own == inode) { Named::Host } else { Named::Unknown })
    }
}

/// The namespaces by which a container can be found later: the relay's, those that its config.json names, and the user
/// namespace that the relay enters last. The host's own namespaces are left out.
pub fn namespaces(spec: &Spec, relay: i32, user: Option<&OwnedFd>) -> Vec<KnownNamespace> {
    let named = namespace_paths(spec);
    let found = KINDS.into_iter().flat_map(|(_, kind)| {
        let path = named.iter().find(|(name, _)| *name == kind).map(|(_, path)| path.clone());
        let named = path.and_then(|path| Some((inode(&path).ok()?, Some(path))));
        let relays = inode(&of_process(relay, kind)).ok().map(|inode| (inode, None));
        let own = inode(Path::new(&format!("/proc/self/ns/{kind}"))).ok();
        named
            .into_iter()
            .chain(relays)
            .filter(move |(inode, _)| own != Some(*inode))
            .map(move |(inode, path)| KnownNamespace { kind: kind.to_owned(), inode, path })
    });
    let user = user.and_then(|user| {
        let inode = fstat(user).ok()?.st_ino;
        Some(KnownNamespace { kind: USER.to_owned(), inode, path: None })
    });
    found.chain(user).collect()
}

/// A namespace path of the new container.
struct Given<'a> {
    kind: &'static str,
    path: PathBuf,
    /// The living container whose namespace it names, if there is one.
    owner: Option<&'a Record>,
}

impl<'a> Given<'a> {
    fn new(kind: &'static str, path: PathBuf, records: &'a [Record]) -> Self {
        let inode = inode(&path).ok();
        let is_it = |namespace: &KnownNamespace| namespace.kind == kind && Some(namespace.inode) == inode;
        let owner = records
            .iter()
            .find(|record| record.namespaces.iter().any(is_it) && living(record).into_iter().any(is_it));
        Self { kind, path, owner }
    }
}

/// The namespaces of a container that still exist.
fn living(record: &Record) -> Vec<&KnownNamespace> {
    let Some(relay) = record.relay else { return Vec::new() };
    let living = record.namespaces.iter().filter(|namespace| namespace.lives(relay.pid)).collect();
    // Last, because its PID is another's once it is gone.
    if relay.is_alive() { living } else { Vec::new() }
}

/// The sandbox that annotations name, if the network namespace confirms it.
fn named_sandbox(records: &[Record], id: String, given: &[Given<'_>]) -> anyhow::Result<String> {
    let record = records
        .iter()
        .find(|record| record.id == id)
        .ok_or_else(|| ContainerError::DoesNotExist(id.clone()))
        .with_context(|| format!("{CONFIG}: annotations: the sandbox of this container"))?;
    if let Some(sandbox) = &record.sandbox {
        anyhow::bail!(
            "{CONFIG}: annotations: container {id:?} is not a sandbox, but a member of sandbox {sandbox:?}"
        );
    }
    let network = given.iter().find(|given| given.kind == NETWORK);
    if let Some(Given { path, owner: None, .. }) = network
        && path.exists()
        && record.relay.is_some_and(|relay| relay.is_alive())
    {
        anyhow::bail!(
            "{CONFIG}: linux.namespaces: {} is not the network namespace of sandbox {id:?}, which the annotations name",
            path.display()
        );
    }
    Ok(id)
}

fn namespace_paths(spec: &Spec) -> Vec<(&'static str, PathBuf)> {
    let entries = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    KINDS
        .into_iter()
        .filter_map(|(kind, name)| {
            let entry = entries.iter().find(|entry| entry.typ() == kind)?;
            let path = entry.path().clone().filter(|path| !path.as_os_str().is_empty())?;
            Some((name, path))
        })
        .collect()
}

fn name_of(kind: Type) -> &'static str {
    KINDS.into_iter().find(|(known, _)| *known == kind).map_or("", |(_, name)| name)
}

#[cfg(test)]
#[path = "sandbox_test.rs"]
mod tests;
