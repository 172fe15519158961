//! A container's processes, from clone to execve: what each makes around itself, one aspect of config.json per file.
//!
//! An init builds the container; an exec joins what the init has built. The rest ([`program`]) is the same for both.

use std::{ffi::CString, fs::File};

use nix::sched::CloneFlags;
use stockade_protocol::container::{Container, Process, SeccompFilter};

use crate::error::{ErrorKind, Result, error};

mod capabilities;
mod copy_up;
mod credentials;
mod descriptors;
mod devices;
mod environment;
mod executable;
mod hostname;
mod masked_paths;
mod mounts;
mod namespaces;
mod notify;
mod oom_score;
mod program;
mod report;
mod resolve;
mod rlimits;
mod rootfs;
mod seccomp;
mod signals;
mod start_hooks;
mod sysctl;
mod terminal;

pub use namespaces::Joined;
pub use program::{Spawned, Surroundings, is_container_process};
pub use report::{Report, hear};
pub use rlimits::MOST_OPEN_FILES;

/// Clones a container's init, which builds the container.
pub fn spawn_init(spec: &Container, joined: &Joined, cgroup: &File) -> Result<Spawned> {
    let namespaces = namespaces::to_clone(&spec.namespaces);
    program::spawn(&spec.process, &spec.seccomp, &spec.start_hooks, namespaces, joined, cgroup, || {
        build(spec, joined)
    })
}

/// Clones another process of a container, whose namespaces it joins; of none, it stays in the guest's own.
pub fn spawn_exec(
    process: &Process,
    seccomp: &[SeccompFilter],
    joined: &Joined,
    cgroup: &File,
) -> Result<Spawned> {
    program::spawn(process, seccomp, &[], CloneFlags::empty(), joined, cgroup, || {
        joined.enter()?;
        let open = |size| terminal::open(&rootfs::current()?, size, process.user.uid);
        let terminal = process.terminal.map(open).transpose()?;
        Ok(Surroundings { terminal, ..Surroundings::default() })
    })
}

fn build(spec: &Container, joined: &Joined) -> Result<Surroundings> {
    let process = &spec.process;
    let mut warnings = Vec::new();
    namespaces::make(&spec.namespaces)?;
    joined.enter()?;
    sysctl::apply(&spec.sysctl)?;
    hostname::apply(spec)?;

    let open = |root| process.terminal.map(|size| terminal::open(root, size, process.user.uid)).transpose();
    let terminal;
    let mut notify = None;
    if namespaces::has_own_mounts(&spec.namespaces, &mut warnings) {
        let root = rootfs::open(&spec.rootfs)?;
        let mounted = mounts::mount_all(&root, &spec.mounts)?;
        devices::create_all(&root, spec)?;
        terminal = open(&root)?;
        if terminal.is_some() {
            terminal::be_console(&root)?;
        }
        if spec.notify {
            notify = Some(notify::open(&root)?);
        }
        rootfs::create_folder(&root, &process.cwd)?;
        rootfs::pivot(root)?;
        mounted.finish()?;
        masked_paths::apply(&spec.masked_paths, &spec.readonly_paths)?;
        rootfs::finish(&spec.rootfs)?;
    } else {
        terminal = open(&rootfs::current()?)?;
        if spec.notify {
            warnings
                .push("without a mount namespace of its own the container gets no NOTIFY_SOCKET".to_owned());
        }
    }
    Ok(Surroundings { warnings, terminal, notify })
}

/// `strings` for the kernel, which ends them at their first NUL.
fn c_strings(property: &str, strings: &[String]) -> Result<Vec<CString>> {
    strings
        .iter()
        .map(|string| {
            CString::new(string.as_str())
                .map_err(|_| error(ErrorKind::Spec, format!("{property}: {string:?} contains a NUL byte")))
        })
        .collect()
}
