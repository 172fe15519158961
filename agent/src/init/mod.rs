//! A container's processes, from clone to execve: what each of them sets up, one aspect of config.json in each file.
//!
//! An init builds the container; an exec joins what the init has built. The rest ([`program`]) is the same for both.

use std::{ffi::CString, fs::File, mem};

use nix::{
    sched::CloneFlags,
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{Pid, fork},
};
use stockade_protocol::{
    container::{Container, IdMappings, MemoryPolicy, Process, SeccompFilter},
    settings::Confinement,
};

use crate::error::{Context, ErrorKind, Result, error};

mod capabilities;
mod confinement;
pub mod copy_up;
mod cpu_affinity;
mod credentials;
mod descriptors;
mod devices;
mod environment;
mod executable;
mod hostname;
mod io_priority;
mod masked_paths;
mod memory_policy;
mod mounts;
mod namespaces;
mod notify;
mod oom_score;
mod personality;
pub mod proc_files;
mod program;
mod report;
mod rlimits;
pub mod rootfs;
mod scheduler;
mod scratch;
mod seccomp;
mod shared_files;
mod signals;
mod start_hooks;
mod sysctl;
mod terminal;
mod time_namespace;
mod user_namespace;
mod working_directory;

pub use namespaces::Joined;
pub use program::{Setup, Spawned, is_container_process};
pub use report::{Report, hear};
pub use rlimits::MAX_OPEN_FILES;

use self::{program::Job, user_namespace::Prepared};

/// The settings for every process of a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForAll<'a> {
    /// `linux.seccomp`
    pub seccomp: &'a [SeccompFilter],
    /// `linux.personality`
    pub personality: Option<u32>,
    /// `linux.memoryPolicy`
    pub memory_policy: Option<&'a MemoryPolicy>,
    /// The IDs of its user namespace, if it has one.
    pub ids: Option<&'a IdMappings>,
    /// What security modules apply to the process that is made.
    pub confinement: Option<&'a Confinement>,
}

/// Clones a container's init, which builds the container.
pub fn spawn_init(
    spec: &Container,
    confinement: Option<&Confinement>,
    joined: &Joined,
    cgroup: &File,
) -> Result<Spawned> {
    if !spec.masked_paths.is_empty() {
        masked_paths::provide_null()?;
    }
    let job = Job {
        process: &spec.process,
        for_all: ForAll {
            seccomp: &spec.seccomp,
            personality: spec.personality,
            memory_policy: spec.memory_policy.as_ref(),
            ids: spec.id_mappings.as_ref(),
            confinement,
        },
        hooks: &spec.start_hooks,
        owner: outside(&spec.process, spec.id_mappings.as_ref())?,
    };
    let label = confinement.and_then(|confinement| confinement.mount_label.as_deref());
    if spec.id_mappings.is_none() {
        let namespaces = namespaces::to_clone(&spec.namespaces);
        let fork = || joined.fork_into(namespaces, cgroup);
        return program::spawn(&job, fork, |_| Ok(()), |()| build(spec, joined, label, Prepared::default()));
    }
    let spawned = program::spawn(
        &job,
        // SAFETY: the agent has one thread.
        || unsafe { fork() }.or_internal(|| "fork".to_owned()),
        |channel| user_namespace::enter(channel, spec, joined, label),
        |prepared| build(spec, joined, label, prepared),
    )?;
    let pid = user_namespace::hear(&spawned.channel)?;
    schedule(pid, &spec.process)?;
    Ok(Spawned { pid, ..spawned })
}

/// Clones another process of a container, whose namespaces it joins; without a container, it stays in the guest's own.
pub fn spawn_exec(process: &Process, for_all: ForAll<'_>, joined: &Joined, cgroup: &File) -> Result<Spawned> {
    let mapped = for_all.ids.is_some();
    let job = Job { process, for_all, hooks: &[], owner: outside(process, for_all.ids)? };
    let fork = || joined.fork_into(CloneFlags::empty(), cgroup);
    let spawned = program::spawn(
        &job,
        fork,
        |_| Ok(()),
        |()| {
            if mapped {
                // The guest's root can do this, and the container's may not.
                rlimits::raise(&process.rlimits)?;
            }
            joined.enter()?;
            if mapped {
                user_namespace::become_root()?;
            }
            let open = |size| terminal::open(&rootfs::current()?, size, process.user.uid);
            let terminal = process.terminal.map(open).transpose()?;
            Ok(Setup { terminal, ..Setup::default() })
        },
    )?;
    if mapped {
        schedule(spawned.pid, process)?;
    }
    Ok(spawned)
}

/// Sets the scheduling of a process in a user namespace before it is started: the namespace's root may not raise a
/// priority.
fn schedule(pid: Pid, process: &Process) -> Result<()> {
    let scheduling = &process.scheduling;
    scheduler::apply(pid, scheduling.scheduler.as_ref())
        .and_then(|()| io_priority::apply(pid, scheduling.io_priority))
        .inspect_err(|_| {
            // The process would end by itself, because nobody starts it, but later; its cgroup has to be removed now.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        })
}

/// The guest's ID of the process's user.
fn outside(process: &Process, ids: Option<&IdMappings>) -> Result<u32> {
    let uid = process.user.uid;
    let unmapped = || error(ErrorKind::Spec, format!("process.user.uid: {uid} is not in linux.uidMappings"));
    ids.map_or(Some(uid), |ids| ids.user(uid)).ok_or_else(unmapped)
}

fn build(spec: &Container, joined: &Joined, label: Option<&str>, prepared: Prepared) -> Result<Setup> {
    let process = &spec.process;
    let mut warnings = Vec::new();
    namespaces::make(&spec.namespaces)?;
    time_namespace::make(spec)?;
    if spec.id_mappings.is_none() {
        joined.enter()?;
        sysctl::apply(&spec.sysctl)?;
    } else {
        // The other namespaces were entered before.
        joined.enter_some(|kind| kind == CloneFlags::CLONE_NEWCGROUP)?;
        let denied = sysctl::apply_permitted(&spec.sysctl)?;
        user_namespace::become_root()?;
        sysctl::apply(denied)?;
    }
    hostname::apply(spec)?;

    let Prepared { rootfs: root, mounts: made, devices: nodes } = prepared;
    let open = |root| process.terminal.map(|size| terminal::open(root, size, process.user.uid)).transpose();
    let terminal;
    let mut notify = None;
    let mut shared_files = Vec::new();
    if namespaces::has_own_mounts(&spec.namespaces, &mut warnings) {
        let mut root = rootfs::open(root.map_or_else(|| rootfs::clone(&spec.rootfs), Ok)?)?;
        let mut mounted = mounts::mount_all(&mut root, spec, made)?;
        shared_files = mem::take(&mut mounted.files);
        devices::create_all(&root, spec, nodes)?;
        terminal = open(&root)?;
        if terminal.is_some() {
            terminal::be_console(&root)?;
        }
        if spec.notify {
            notify = Some(notify::open(&root)?);
        }
        rootfs::create_directory(&root, &process.cwd)?;
        mounted.finish()?;
        masked_paths::apply(&root, &spec.masked_paths, &spec.readonly_paths, label)?;
        rootfs::pivot(root)?;
        rootfs::finish(&spec.rootfs)?;
        mounted.propagate_again()?;
    } else {
        terminal = open(&rootfs::current()?)?;
        if spec.notify {
            warnings
                .push("without a mount namespace of its own the container gets no NOTIFY_SOCKET".to_owned());
        }
    }
    Ok(Setup { warnings, terminal, notify, shared_files })
}

/// Converts `strings` for the kernel, where they would end at the first NUL.
fn c_strings(property: &str, strings: &[String]) -> Result<Vec<CString>> {
    strings
        .iter()
        .map(|string| {
            CString::new(string.as_str())
                .map_err(|_| error(ErrorKind::Spec, format!("{property}: {string:?} contains a NUL byte")))
        })
        .collect()
}
