//! Which VM a container belongs to: one of its own, or that of its pod's sandbox.
//!
//! Callers tell in two ways, and either suffices: by annotations, or by the path of a namespace that belongs to another
//! container. Every container can be joined later, because podman's infra containers carry no annotation.
//!
//! A namespace is known by its nsfs inode, under whatever path it is given. A relay's own namespaces stand for those of
//! its container in the guest; one that a container's config.json named (CRI-O pins them below /var/run) stands for that
//! container's too.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::sys::stat::fstat;
use oci_spec::runtime::{LinuxNamespaceType as Type, Spec};
use serde::{Deserialize, Serialize};

use crate::bundle::{CONFIG, SpecError};
use crate::container_id::ContainerId;
use crate::error::ContainerError;
use crate::state::{Record, Root};

/// What marks a member, and what then names its sandbox, for each kind of caller.
const ANNOTATIONS: [(&str, &str); 3] = [
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
    ("io.kubernetes.docker.type", "io.kubernetes.sandbox.id"),
];

/// The value that marks a member; everything else is a sandbox or stands alone.
const MEMBER: &str = "container";

/// The values that mark the sandbox of a Kubernetes pod.
const POD: [&str; 2] = ["sandbox", "podsandbox"];

/// The kinds of namespaces by which a container is recognised, with their names in /proc/PID/ns.
const KINDS: [(Type, &str); 7] = [
    (Type::Pid, "pid"),
    (Type::Ipc, "ipc"),
    (Type::Uts, "uts"),
    (Type::Network, "net"),
    (Type::Cgroup, "cgroup"),
    (Type::Time, "time"),
    (Type::User, USER),
];

const USER: &str = "user";

/// A namespace of a container as the host sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownNamespace {
    /// Its name in /proc/PID/ns.
    kind: String,
    /// Its nsfs inode.
    inode: u64,
}

/// The namespaces in which a new container may ask to be, by the containers that have them.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// The sandbox whose VM the container joins; `None` gives it a VM of its own.
    pub sandbox: Option<ContainerId>,
    /// What its containers share already.
    pub volumes: Option<PodVolumes>,
    known: HashMap<(String, u64), String>,
}

/// The volumes of a pod ([`crate::lower`] says which they are).
#[derive(Clone, Debug, Default)]
pub struct PodVolumes {
    /// Their folder in the VM's share: the sandbox's.
    pub folder: String,
    /// Those that a container writes to, by their names there.
    pub writable: HashSet<String>,
}

/// A namespace path in the eyes of a new container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// That of this container, in the same VM.
    Of(String),
    /// The runtime's own: the host's.
    Host,
    /// Nobody's that stockade knows.
    Unknown,
}

impl Peers {
    /// Finds the sandbox of a new container, and who is in it.
    ///
    /// # Errors
    /// When the sandbox that the annotations name is not there, or namespaces belong to different VMs.
    pub fn find(root: &Root, spec: &Spec) -> anyhow::Result<Self> {
        let named = annotated(spec.annotations().as_ref()).context(CONFIG)?;
        let paths = namespace_paths(spec);
        if named.is_none() && paths.is_empty() {
            return Ok(Self::default());
        }
        let records = root.records();
        let sandbox_of = |record: &Record| record.sandbox.clone().unwrap_or_else(|| record.id.clone());
        let mut sandbox = named;
        if let Some(id) = &mut sandbox {
            // An ephemeral container may name a member where it means the member's sandbox.
            let record = records
                .iter()
                .find(|record| record.id == *id)
                .ok_or_else(|| ContainerError::DoesNotExist(id.clone()))
                .with_context(|| format!("{CONFIG}: annotations: the sandbox of this container"))?;
            *id = sandbox_of(record);
        }
        for (kind, path) in paths {
            let Ok(inode) = inode(&path) else { continue };
            let namespace = KnownNamespace { kind: kind.to_owned(), inode };
            let Some(owner) = records.iter().find(|record| record.namespaces.contains(&namespace)) else {
                continue;
            };
            let its_sandbox = sandbox_of(owner);
            match &sandbox {
                None => sandbox = Some(its_sandbox),
                Some(sandbox) if *sandbox != its_sandbox => anyhow::bail!(
                    "{CONFIG}: linux.namespaces: {} belongs to container {:?}, which is in another VM than sandbox \
                     {sandbox:?}",
                    path.display(),
                    owner.id
                ),
                Some(_) => {}
            }
        }
        let Some(sandbox) = sandbox else { return Ok(Self::default()) };
        let mut known = HashMap::new();
        let mut volumes = None;
        for record in records.iter().filter(|record| sandbox_of(record) == sandbox) {
            let pod: &mut PodVolumes = volumes.get_or_insert_default();
            if record.id == sandbox {
                pod.folder = record.share().to_owned();
            }
            if record.complete {
                pod.writable.extend(record.volumes.iter().cloned());
            }
            for namespace in &record.namespaces {
                // The sandbox's own name for a shared namespace goes before its members'.
                let key = (namespace.kind.clone(), namespace.inode);
                if record.sandbox.is_none() || !known.contains_key(&key) {
                    known.insert(key, record.id.clone());
                }
            }
        }
        // Without a sandbox there is no such folder; creating the container tells that it is gone.
        let volumes = volumes.filter(|pod| !pod.folder.is_empty());
        Ok(Self { sandbox: Some(sandbox.parse()?), volumes, known })
    }

    /// Whose namespace a path names.
    ///
    /// # Errors
    /// A [`SpecError`] where there is nothing at the path.
    pub fn named(&self, kind: Type, path: &Path, property: &str) -> Result<Named, SpecError> {
        let name = name_of(kind);
        let inode = inode(path).map_err(|cause| {
            SpecError::new(property, format!("cannot look at the namespace {}: {cause}", path.display()))
        })?;
        if let Some(owner) = self.known.get(&(name.to_owned(), inode)) {
            return Ok(Named::Of(owner.clone()));
        }
        let own = self::inode(&PathBuf::from(format!("/proc/self/ns/{name}")));
        Ok(if own.is_ok_and(|own| own == inode) { Named::Host } else { Named::Unknown })
    }
}

/// The namespaces by which a container can be found later: the relay's, those that its config.json names, and the user
/// namespace that the relay enters last. The host's own stand for nobody.
pub fn namespaces(spec: &Spec, relay: i32, user: Option<&OwnedFd>) -> Vec<KnownNamespace> {
    let named = namespace_paths(spec);
    let found = KINDS.into_iter().flat_map(|(_, kind)| {
        let named = named.iter().find(|(name, _)| *name == kind).map(|(_, path)| path.clone());
        let paths = named.into_iter().chain([PathBuf::from(format!("/proc/{relay}/ns/{kind}"))]);
        let own = inode(&PathBuf::from(format!("/proc/self/ns/{kind}"))).ok();
        paths
            .filter_map(|path| inode(&path).ok())
            .filter(move |inode| own != Some(*inode))
            .map(move |inode| KnownNamespace { kind: kind.to_owned(), inode })
    });
    let user =
        user.and_then(|user| Some(KnownNamespace { kind: USER.to_owned(), inode: fstat(user).ok()?.st_ino }));
    found.chain(user).collect()
}

/// Whether this is the sandbox of a Kubernetes pod, whose caller forwards ports.
pub fn is_pod(annotations: Option<&HashMap<String, String>>) -> bool {
    annotations.is_some_and(|annotations| {
        let roles = ANNOTATIONS.iter().filter_map(|(role, _)| annotations.get(*role));
        roles.into_iter().any(|role| POD.contains(&&**role))
    })
}

/// Whether a container's annotations say that it belongs to a pod, as its sandbox or as a member.
pub fn is_in_pod(annotations: Option<&HashMap<String, String>>) -> bool {
    annotations.is_some_and(|annotations| ANNOTATIONS.iter().any(|(role, _)| annotations.contains_key(*role)))
}

/// The ID that a member's annotations name.
fn annotated(annotations: Option<&HashMap<String, String>>) -> Result<Option<String>, SpecError> {
    let Some(annotations) = annotations else { return Ok(None) };
    for (role, sandbox) in ANNOTATIONS {
        if annotations.get(role).is_some_and(|role| role == MEMBER) {
            return match annotations.get(sandbox) {
                Some(id) => Ok(Some(id.clone())),
                None => Err(SpecError::new(
                    "annotations",
                    format!("{role} is {MEMBER:?}, but {sandbox} does not say in which sandbox"),
                )),
            };
        }
    }
    Ok(None)
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

fn inode(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

#[cfg(test)]
#[path = "sandbox_test.rs"]
mod tests;
