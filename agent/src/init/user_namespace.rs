//! Containers with a user namespace, which is new or belongs to another container.
//!
//! ```text
//!  agent            helper                                    init
//!    │ fork            │
//!    ├────────────────→│ joins the guest's and other containers' namespaces
//!    │                 │ makes what only the guest's root can: shared trees, device nodes, sysfs …
//!    │                 │ sets what the guest's network has of linux.sysctl
//!    │                 │ joins another container's user namespace
//!    │                 │ clones, as a child of the agent
//!    │                 ├──────────────────────────────────────→│ new namespaces, which belong to the user namespace
//!    │←─────── PID ────┤ writes the ID mappings                │
//!    │                 ├─────────────── go on ────────────────→│ becomes the namespace's root, builds the container
//!    │                 └ ends                                  │
//! ```
//!
//! The namespaces of the container belong to its user namespace, so that its root can do in them what a root does. For
//! the same reason its root could make none of the mounts that need rights in the guest's own namespaces.

use std::{
    io::{Read, Write, pipe},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sched::CloneFlags,
    sys::socket::{MsgFlags, recv, send},
    unistd::{ForkResult, Gid, Pid, Uid, setresgid, setresuid, setsid},
};
use stockade_protocol::{
    container::{Container, IdMapping, Namespace},
    frame,
};
use stockade_sys::clone::Fork;

use super::{Joined, devices, mounts, namespaces, proc_files, rlimits, rootfs, sysctl};
use crate::{
    cgroup::Cgroup,
    error::{Context, ErrorKind, Result, error},
};

/// Longest message of the helper, in bytes.
const LIMIT: usize = 64 << 10;

/// What the guest's root has made for a container's root.
#[derive(Debug, Default)]
pub struct Prepared {
    /// The root file system, not mounted yet.
    pub rootfs: Option<OwnedFd>,
    /// The file systems of some of `mounts`, by their index, not mounted yet.
    pub mounts: Vec<Option<OwnedFd>>,
    /// A file system with the device nodes.
    pub devices: Option<OwnedFd>,
}

impl Prepared {
    fn make(spec: &Container, label: Option<&str>) -> Result<Self> {
        Ok(Self {
            rootfs: Some(rootfs::clone(&spec.rootfs)?),
            mounts: spec.mounts.iter().map(|entry| mounts::prepare(entry, spec)).collect::<Result<_>>()?,
            devices: devices::prepare(spec, label)?,
        })
    }
}

/// Does the helper's work; file systems that it makes get the label. Only the init returns from this.
pub fn enter(channel: &OwnedFd, spec: &Container, joined: &Joined, label: Option<&str>) -> Result<Prepared> {
    // Nobody else may.
    rlimits::raise(&spec.process.rlimits)?;
    sysctl::apply_of_network(&spec.sysctl)?;
    joined.enter_pid_for_children()?;
    // The way into a cgroup leads through the guest's cgroup namespace.
    joined.enter_some(|kind| !matches!(kind, CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWUSER))?;
    let prepared = Prepared::make(spec, label)?;
    let cgroup = Cgroup::find(&spec.cgroup)?.open()?;
    joined.enter_some(|kind| kind == CloneFlags::CLONE_NEWUSER)?;

    let (mut released, mut release) = pipe().or_internal(|| "make a pipe".to_owned())?;
    let namespaces = namespaces::to_clone(&spec.namespaces);
    let fork = Fork { namespaces: namespaces.bits(), cgroup: Some(cgroup.as_fd()), is_sibling: true };
    // SAFETY: the helper is a copy of the agent, which has one thread, and the child goes its own way.
    let fork = unsafe { fork.fork() }.map(ForkResult::from);
    match fork.or_spec(|| "clone the process into a user namespace".to_owned())? {
        ForkResult::Child => {
            drop(release);
            if released.read(&mut [0]).is_ok_and(|length| length == 1) {
                setsid().or_internal(|| "begin a session".to_owned())?;
                return Ok(prepared);
            }
        }
        ForkResult::Parent { child: pid } => {
            if spec.namespaces.user == Namespace::New {
                map(pid, spec)?;
            }
            tell(channel, pid)?;
            release.write_all(&[0]).or_internal(|| "release the container's init".to_owned())?;
        }
    }
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(0) }
}

fn map(pid: Pid, spec: &Container) -> Result<()> {
    let Some(mappings) = &spec.id_mappings else {
        return Err(error(ErrorKind::Spec, "linux.uidMappings: a new user namespace needs them"));
    };
    [("uid", &mappings.users), ("gid", &mappings.groups)].into_iter().try_for_each(|(kind, list)| {
        let line = |mapping: &IdMapping| format!("{} {} {}\n", mapping.inside, mapping.outside, mapping.size);
        let text: String = list.iter().map(line).collect();
        proc_files::write(format!("{pid}/{kind}_map"), &text)
            .or_spec(|| format!("set linux.{kind}Mappings to {:?}", text.trim_end()))
    })
}

fn tell(channel: &OwnedFd, pid: Pid) -> Result<()> {
    let message: Result<i32> = Ok(pid.as_raw());
    let frame = frame::encode(&message)
        .map_err(|cause| error(ErrorKind::Internal, format!("report to the agent: {cause}")))?;
    send(channel.as_raw_fd(), &frame, MsgFlags::MSG_NOSIGNAL)
        .map(drop)
        .or_internal(|| "report to the agent".to_owned())
}

/// The agent's side: it waits for the helper, which never waits itself, and returns the init's PID.
pub fn hear(channel: &OwnedFd) -> Result<Pid> {
    let mut packet = vec![0; LIMIT];
    let length = loop {
        match recv(channel.as_raw_fd(), &mut packet, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            received => break received.or_internal(|| "hear of the container's init".to_owned())?,
        }
    };
    match frame::read::<Result<i32>>(&mut &packet[..length], LIMIT) {
        Ok(Some(Ok(pid))) => Ok(Pid::from_raw(pid)),
        Ok(Some(Err(failure))) => Err(failure),
        Ok(None) | Err(_) => {
            Err(error(ErrorKind::Internal, "the process was killed before it entered its user namespace"))
        }
    }
}

/// Becomes the root of the user namespace that the process has entered, with all of its capabilities.
pub fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid)
        .and_then(|()| setresuid(uid, uid, uid))
        .or_spec(|| "become the root of the user namespace (does it map ID 0?)".to_owned())
}
