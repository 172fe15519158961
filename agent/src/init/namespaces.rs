//! `linux.namespaces`: which namespaces are new, which are joined, and which stay the guest's.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    unistd::{ForkResult, Pid},
};
use stockade_protocol::container::{Namespace, Namespaces};
use stockade_sys::clone::Fork;

use crate::error::{Context, ErrorKind, Result, error, reason};

/// The namespaces of other containers that a new process enters, by the PIDs of their inits in the agent's /proc.
#[derive(Debug, Default)]
pub struct Joined {
    pid: Option<Pid>,
    others: Vec<(CloneFlags, Pid)>,
}

/// CLONE_NEWTIME, for which nix has no name.
pub const NEW_TIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

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
                joined.pid = Some(pid);
            } else {
                joined.others.push((kind, pid));
            }
        }
        Ok(joined)
    }

    /// All namespaces of the container whose init is `init`.
    pub fn all_of(init: Pid, namespaces: &Namespaces) -> Self {
        let is_entered = |kind: CloneFlags, namespace: &Namespace| match kind {
            CloneFlags::CLONE_NEWPID => false,
            // Entering the same user namespace again fails, and entering a time namespace takes long.
            CloneFlags::CLONE_NEWUSER | NEW_TIME => *namespace != Namespace::Guest,
            _ => true,
        };
        let others = listed(namespaces).filter(|(kind, namespace)| is_entered(*kind, namespace));
        Self { pid: Some(init), others: others.map(|(kind, _)| (kind, init)).collect() }
    }

    /// Enters all namespaces except the PID namespace.
    pub fn enter(&self) -> Result<()> {
        self.enter_some(|_| true)
    }

    /// Enters the namespaces of these kinds, but never the PID namespace.
    pub fn enter_some(&self, is_wanted: impl Fn(CloneFlags) -> bool) -> Result<()> {
        let opened: Vec<(CloneFlags, OwnedFd)> = self
            .others
            .iter()
            .filter(|(kind, _)| is_wanted(*kind))
            .map(|(kind, pid)| Ok((*kind, open(*pid, file_name(*kind))?)))
            .collect::<Result<_>>()?;
        opened.iter().try_for_each(|(kind, namespace)| enter_namespace(namespace, *kind))
    }

    /// Puts all further children of this process into the PID namespace to be joined, if there is one.
    pub fn enter_pid_for_children(&self) -> Result<()> {
        let Some(pid) = self.pid else { return Ok(()) };
        enter_namespace(&open(pid, "pid")?, CloneFlags::CLONE_NEWPID)
    }

    /// Forks into new namespaces and a cgroup; the child is in the PID namespace to be joined, if there is one.
    pub fn fork_into(&self, namespaces: CloneFlags, cgroup: &File) -> Result<ForkResult> {
        let own = self.pid.map(|_| open(Pid::this(), "pid")).transpose()?;
        self.enter_pid_for_children()?;
        let fork = Fork { namespaces: namespaces.bits(), cgroup: Some(cgroup.as_fd()), is_sibling: false };
        // SAFETY: the agent has one thread, and the child goes its own way.
        let fork = unsafe { fork.fork() }.map(ForkResult::from);
        // The child is in the PID namespace in which its own children are to be.
        match (&fork, own) {
            (Ok(ForkResult::Child), _) | (_, None) => {}
            (_, Some(own)) => enter_namespace(&own, CloneFlags::CLONE_NEWPID)?,
        }
        fork.map_err(|errno| match errno {
            Errno::EBUSY | Errno::EOPNOTSUPP => {
                let message = "the cgroup takes no processes, because it has handed its controllers down to cgroups below it";
                error(ErrorKind::Spec, message)
            }
            errno => error(ErrorKind::Internal, format!("clone the process: {}", reason(errno))),
        })
    }
}

/// The kinds of namespaces, in the order in which they are joined.
const KINDS: [CloneFlags; 7] = [
    CloneFlags::CLONE_NEWPID,
    CloneFlags::CLONE_NEWUTS,
    CloneFlags::CLONE_NEWIPC,
    CloneFlags::CLONE_NEWCGROUP,
    NEW_TIME,
    CloneFlags::CLONE_NEWNS,
    // This is entered last, because the guest's own namespaces cannot be reached afterwards.
    CloneFlags::CLONE_NEWUSER,
];

fn listed(namespaces: &Namespaces) -> impl Iterator<Item = (CloneFlags, &Namespace)> {
    let Namespaces { pid, mount, uts, ipc, cgroup, user, time } = namespaces;
    KINDS.into_iter().zip([pid, uts, ipc, cgroup, time, mount, user])
}

/// The flags with which the init is cloned.
///
/// Its mounts are always its own: a container that asks for none would share the *host's* mounts, which do not exist
/// here, and it must not change the agent's. Its cgroup namespace is made later, when it is in its cgroup, and so is
/// its time namespace, whose clocks must be set before a process is in it.
pub fn to_clone(namespaces: &Namespaces) -> CloneFlags {
    let new = listed(namespaces).filter(|(kind, namespace)| match *kind {
        CloneFlags::CLONE_NEWCGROUP | NEW_TIME => false,
        CloneFlags::CLONE_NEWNS => !matches!(namespace, Namespace::Container(_)),
        _ => **namespace == Namespace::New,
    });
    new.map(|(kind, _)| kind).collect()
}

/// Makes the cgroup namespace; the process must be in its cgroup.
pub fn make(namespaces: &Namespaces) -> Result<()> {
    match namespaces.cgroup {
        Namespace::New => {
            unshare(CloneFlags::CLONE_NEWCGROUP).or_internal(|| "make a cgroup namespace".to_owned())
        }
        _ => Ok(()),
    }
}

/// Whether the container makes its own mounts; it does not if it joins the mount namespace of another container.
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
        // The process of a created container is not in it yet, but its program will be.
        NEW_TIME => "time_for_children",
        CloneFlags::CLONE_NEWUSER => "user",
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
