//! `linux.namespaces`: which are cloned, which are joined, which stay the guest's.

use std::{fs::File, os::fd::OwnedFd};

use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::Pid,
};
use stockade_protocol::container::{Namespace, Namespaces};

use crate::error::{Context, ErrorKind, Result, error};

/// The namespaces of other containers that a new one enters. They are opened by the agent: PIDs mean nothing
/// in the child's own PID namespace.
#[derive(Debug, Default)]
pub struct Joined {
    pid: Option<OwnedFd>,
    others: Vec<(CloneFlags, Pid)>,
}

impl Joined {
    /// Looks up the inits (by container ID) whose namespaces are asked for.
    pub fn resolve(namespaces: &Namespaces, init_of: impl Fn(&str) -> Option<Pid>) -> Result<Self> {
        let mut joined = Self::default();
        for (kind, namespace) in listed(namespaces) {
            let Namespace::Container(id) = namespace else { continue };
            let Some(pid) = init_of(id) else {
                let message = format!("container {id}, whose namespace is to be joined, is not running");
                return Err(error(ErrorKind::Spec, message));
            };
            if kind == CloneFlags::CLONE_NEWPID {
                joined.pid = Some(open(pid, "pid")?);
            } else {
                joined.others.push((kind, pid));
            }
        }
        Ok(joined)
    }

    /// Every namespace of the container whose init is `init`.
    pub fn all_of(init: Pid) -> Result<Self> {
        let others = KINDS.into_iter().filter(|kind| *kind != CloneFlags::CLONE_NEWPID);
        Ok(Self { pid: Some(open(init, "pid")?), others: others.map(|kind| (kind, init)).collect() })
    }

    /// Enters all but the PID namespace.
    pub fn enter(&self) -> Result<()> {
        let opened: Vec<(CloneFlags, OwnedFd)> = self
            .others
            .iter()
            .map(|(kind, pid)| Ok((*kind, open(*pid, file_name(*kind))?)))
            .collect::<Result<_>>()?;
        opened.iter().try_for_each(|(kind, namespace)| enter_namespace(namespace, *kind))
    }

    /// Runs `fork` so that its child is in the PID namespace to be joined, if any.
    pub fn for_children<T>(&self, fork: impl FnOnce() -> T) -> Result<T> {
        let Some(pid) = &self.pid else { return Ok(fork()) };
        let own = open(Pid::this(), "pid")?;
        enter_namespace(pid, CloneFlags::CLONE_NEWPID)?;
        let result = fork();
        enter_namespace(&own, CloneFlags::CLONE_NEWPID)?;
        Ok(result)
    }
}

/// In the order in which they are joined.
const KINDS: [CloneFlags; 5] = [
    CloneFlags::CLONE_NEWPID,
    CloneFlags::CLONE_NEWUTS,
    CloneFlags::CLONE_NEWIPC,
    CloneFlags::CLONE_NEWCGROUP,
    // Last: in another mount namespace the agent's /proc is out of reach.
    CloneFlags::CLONE_NEWNS,
];

fn listed(namespaces: &Namespaces) -> impl Iterator<Item = (CloneFlags, &Namespace)> {
    let Namespaces { pid, mount, uts, ipc, cgroup } = namespaces;
    KINDS.into_iter().zip([pid, uts, ipc, cgroup, mount])
}

/// The flags with which the init is cloned.
///
/// Its mounts are always its own: a container that asks for none shares the *host's*, of which there are none
/// here, and must not change the agent's. Its cgroup namespace is made later, when it is in its cgroup.
pub fn to_clone(namespaces: &Namespaces) -> CloneFlags {
    let new = listed(namespaces).filter(|(kind, namespace)| match *kind {
        CloneFlags::CLONE_NEWCGROUP => false,
        CloneFlags::CLONE_NEWNS => !matches!(namespace, Namespace::Container(_)),
        _ => **namespace == Namespace::New,
    });
    new.map(|(kind, _)| kind).collect()
}

/// Makes the cgroup namespace, now that the process is in its cgroup.
pub fn make(namespaces: &Namespaces) -> Result<()> {
    match namespaces.cgroup {
        Namespace::New => {
            unshare(CloneFlags::CLONE_NEWCGROUP).or_internal(|| "make a cgroup namespace".to_owned())
        }
        _ => Ok(()),
    }
}

/// Whether the container builds its own file system; it does not where it joins one that is built.
pub fn has_own_mounts(namespaces: &Namespaces, warnings: &mut Vec<String>) -> bool {
    match &namespaces.mount {
        Namespace::New => true,
        Namespace::Guest => {
            warnings.push(
                "linux.namespaces: without a mount namespace a container would share the host's mounts, which no \
                 virtual machine can; it has its own"
                    .to_owned(),
            );
            true
        }
        Namespace::Container(id) => {
            warnings.push(format!(
                "root and mounts: the container joins the mount namespace of {id} and uses its root"
            ));
            false
        }
    }
}

fn file_name(kind: CloneFlags) -> &'static str {
    match kind {
        CloneFlags::CLONE_NEWUTS => "uts",
        CloneFlags::CLONE_NEWIPC => "ipc",
        CloneFlags::CLONE_NEWCGROUP => "cgroup",
        _ => "mnt",
    }
}

fn open(pid: Pid, name: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/{name}");
    File::open(&path).map(OwnedFd::from).or_spec(|| format!("open namespace {path}"))
}

fn enter_namespace(namespace: &OwnedFd, kind: CloneFlags) -> Result<()> {
    setns(namespace, kind).or_spec(|| "join a namespace".to_owned())
}

#[cfg(test)]
#[path = "namespaces_test.rs"]
mod tests;
