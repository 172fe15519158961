//! Having a template made after a start, by a process that nobody waits for.
//!
//! Engines wait for those who hold their pipes or are in their cgroups, and so does systemd for a service's. The builder has a
//! session, a cgroup and a null device of its own, and nothing else of its starter's: no descriptor, no directory, no
//! environment but the name of the configuration. Where it cannot have a cgroup of its own, nothing is made.

use std::ffi::{CString, OsStr};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use anyhow::Context;
use nix::sys::stat::{Mode, umask};
use stockade_sys::descriptors::{close_all_but, duplicate_to};

use super::build::{Built, build_locked};
use super::group::Group;
use super::{Failure, Store, Wanted, most_bytes};
use crate::config::{self, Config};
use crate::sys::process;
use crate::sys::signals;
use crate::vm::Launch;
use crate::vm::sizing;

/// The least that anybody gets of a CPU beside others.
const NICE: libc::c_int = 19;

/// The first to go when memory is short.
const OOM_SCORE: &str = "1000";

/// Has it made. This returns when its builder is on its way, and whatever becomes of that, nobody's start depends on it.
pub fn begin(wanted: &Wanted) {
    match start(wanted) {
        Ok(()) => tracing::debug!("the template {} is made in the background", wanted.name),
        Err(error) => tracing::debug!("the template {} is not made: {error:#}", wanted.name),
    }
}

fn start(wanted: &Wanted) -> anyhow::Result<()> {
    if let Some(failure) = Store::of_host()?.failure(&wanted.name).filter(Failure::counts) {
        anyhow::bail!("it failed a short time ago: {}", failure.reason);
    }
    // A path, and not /proc/self/exe, after which the builder would be called. If it is gone, so is what the VM was made of.
    let program = process::program().context("cannot find this program")?;
    let Wanted { mib, vcpus, name } = wanted;
    let c_string = |text: &[u8]| CString::new(text).context("a NUL byte");
    let path = c_string(program.as_os_str().as_bytes())?;
    let arguments = [
        "stockade",
        "template",
        "build",
        "--class",
        &mib.to_string(),
        "--vcpus",
        &vcpus.to_string(),
        "--background",
        name,
    ]
    .map(|argument| c_string(argument.as_bytes()));
    let arguments = arguments.into_iter().collect::<Result<Vec<_>, _>>()?;
    let configuration = std::env::var_os(config::PATH_VARIABLE);
    let variable = |value: &OsStr| [config::PATH_VARIABLE.as_bytes(), b"=", value.as_bytes()].concat();
    let environment =
        configuration.iter().map(|value| c_string(&variable(value))).collect::<Result<Vec<_>, _>>()?;
    let body = || {
        let end = detach().map(|()| nix::unistd::execve(&path, &arguments, &environment));
        // There is nobody to tell.
        drop(end);
        1
    };
    let between = || {
        // SAFETY: this process is a copy of one with one thread.
        i32::from(unsafe { process::clone(0, None, body) }.is_err())
    };
    // The builder is nobody's child: its parent has ended at once.
    // SAFETY: commands have one thread.
    let child = unsafe { process::clone(0, None, between) }.map_err(io::Error::from).context("clone3")?;
    match child.reap().context("cannot wait for its parent")? {
        nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
        other => anyhow::bail!("its parent ended with {other:?}"),
    }
}

/// In the builder, before it is one: leaves everything of its starter's.
fn detach() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for stdio in 0..=2 {
        // SAFETY: this process executes a program or ends; nothing uses what had these numbers.
        unsafe { duplicate_to(&null, stdio) }?;
    }
    // SAFETY: likewise.
    unsafe { close_all_but(3, &[]) }?;
    std::mem::forget(null);
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    umask(Mode::from_bits_truncate(0o077));
    signals::unblock_all()
}

/// The builder: makes the template of this name where it still would be the same one, nobody makes one now, and it has not failed a
/// short time ago. True if it has.
///
/// # Errors
/// What failed, for nobody: it is kept where `stockade template list` finds it.
pub fn builder(store: &Store, config: &Config, wanted: &Wanted) -> anyhow::Result<bool> {
    let most = most_bytes(config);
    let launch = Launch::prepare(config)?.memory_mib(wanted.mib, sizing::most_mib()).vcpus(wanted.vcpus);
    if !launch.makes_templates(wanted.mib) || launch.template_key().name() != wanted.name {
        return Ok(false);
    }
    let Some(mut lock) = store.try_lock()? else { return Ok(false) };
    store.tidy(&mut lock)?;
    if store.failure(&wanted.name).is_some() {
        return Ok(false);
    }
    retire(wanted.mib, most).inspect_err(|error| store.note_failure(&wanted.name, &format!("{error:#}")))?;
    build_locked(store, &mut lock, launch, false, most).map(|built| matches!(built, Built::Made(_)))
}

/// Leaves the starter's cgroup, and everything to others who want it.
fn retire(mib: u32, most: u64) -> anyhow::Result<()> {
    fs::write("/proc/self/oom_score_adj", OOM_SCORE).context("oom_score_adj")?;
    // SAFETY: setpriority takes integers.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0 {
        return Err(io::Error::last_os_error()).context("setpriority");
    }
    let group = Group::make(mib, most).context("no cgroup of its own")?;
    let joined = group.procs()?.write_all(b"0");
    joined.context("cannot join the cgroup of templates")?;
    Ok(())
}
