//! From clone to execve: what every process of a container goes through, be it the init or an exec.
//!
//! It is a copy of the agent in its new namespaces and cgroup, lets go of the agent, makes its surroundings, becomes
//! what `process` says, reports, waits for its start and executes the program.

use std::{
    convert::Infallible,
    ffi::CString,
    fs::File,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    errno::Errno,
    sched::CloneFlags,
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd::{Pid, chdir, execve, setsid},
};
use stockade_protocol::container::{Hook, Process, SeccompFilter};

use super::{
    Joined, c_strings, capabilities, credentials, descriptors::Kept, environment, executable, oom_score,
    report, rlimits, seccomp, signals, start_hooks,
};
use crate::{
    clone::{self, Fork},
    error::{Context, ErrorKind, Result, error, reason},
    stdio::Stdio,
};

/// Whether this process was cloned for a container.
static IS_CONTAINER_PROCESS: AtomicBool = AtomicBool::new(false);

/// False in the agent itself.
pub fn is_container_process() -> bool {
    IS_CONTAINER_PROCESS.load(Ordering::Relaxed)
}

/// A process that has been cloned.
#[derive(Debug)]
pub struct Spawned {
    /// Its PID in the guest's root PID namespace.
    pub pid: Pid,
    /// The agent's side of its streams; empty until it has reported where it makes a terminal.
    pub stdio: Stdio,
    /// The agent's end of the channel to it.
    pub channel: OwnedFd,
}

/// What a process has made for itself before it becomes what `process` says.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// What could not be applied.
    pub warnings: Vec<String>,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
    /// Its sd_notify(3) socket.
    pub notify: Option<OwnedFd>,
}

/// Clones a process into new `namespaces` and `cgroup`, where it makes its surroundings.
pub fn spawn(
    process: &Process,
    seccomp: &[SeccompFilter],
    hooks: &[Hook],
    namespaces: CloneFlags,
    joined: &Joined,
    cgroup: &File,
    surround: impl FnOnce() -> Result<Surroundings>,
) -> Result<Spawned> {
    let owner = process.user.uid;
    let (mut stdio, pipes) = match process.terminal {
        Some(_) => (Stdio::default(), None),
        None => {
            let (stdio, pipes) = Stdio::pipes(owner)?;
            (stdio, Some(pipes))
        }
    };
    let extra = stdio.add_extra(&process.streams, owner)?;
    let (ours, channel) = report::channel()?;
    let kept = Kept { pipes, extra, channel };
    let pid = joined.for_children(|| {
        // SAFETY: the agent has one thread.
        let fork = unsafe { clone::fork_into(namespaces, cgroup) };
        match fork.or_internal(|| "clone the process".to_owned())? {
            Fork::Parent(pid) => Ok(pid),
            Fork::Child => {
                IS_CONTAINER_PROCESS.store(true, Ordering::Relaxed);
                run(process, seccomp, hooks, kept, surround)
            }
        }
    })??;
    Ok(Spawned { pid, stdio, channel: ours })
}

fn run(
    process: &Process,
    seccomp: &[SeccompFilter],
    hooks: &[Hook],
    kept: Kept,
    surround: impl FnOnce() -> Result<Surroundings>,
) -> ! {
    let failure = match leave_the_agent(kept) {
        Ok(channel) => {
            let Err(failure) = prepare_and_execute(process, seccomp, hooks, &channel, surround);
            // The agent has either heard this or is gone.
            let _ = report::send(&channel, Err(failure.clone()));
            failure
        }
        Err(failure) => failure,
    };
    // Not exit(): what the agent had registered for its own end is not this process's business.
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(exit_status(failure.kind)) }
}

/// As shells have it.
fn exit_status(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::ExecutableNotFound => 127,
        ErrorKind::NotExecutable => 126,
        _ => 1,
    }
}

/// The steps, in the order of dependence: what needs the guest's /proc or privileges comes first.
fn prepare_and_execute(
    process: &Process,
    seccomp: &[SeccompFilter],
    hooks: &[Hook],
    channel: &OwnedFd,
    surround: impl FnOnce() -> Result<Surroundings>,
) -> Result<Infallible> {
    umask(Mode::empty());
    oom_score::apply(process.oom_score_adj)?;
    let surroundings = surround()?;

    let env = environment::prepare(process, surroundings.notify.is_some())?;
    rlimits::apply(&process.rlimits)?;
    if process.no_new_privileges {
        prctl::set_no_new_privs().or_internal(|| "set no_new_privs".to_owned())?;
    }
    let needs_privilege = !seccomp.is_empty() && !process.no_new_privileges;
    let capabilities = capabilities::limit(process.capabilities, needs_privilege)?;
    credentials::apply(&process.user)?;
    capabilities.apply()?;
    chdir(process.cwd.as_str()).or_spec(|| format!("change to the working folder {:?}", process.cwd))?;
    let program = executable::find(process)?;
    let args = c_strings("process.args", &process.args)?;

    report::send(channel, Ok(surroundings))?;
    signals::end_by_default()?;
    report::wait_for_start(channel)?;
    start_hooks::run(hooks)?;
    // Last: a profile need not allow what a runtime does.
    if needs_privilege {
        capabilities::be_allowed_to_load_a_filter()?;
    }
    seccomp::load(seccomp)?;
    execute(&program, &args, &env)
}

/// Stops being the agent: its descriptors, its signals, its session.
fn leave_the_agent(kept: Kept) -> Result<OwnedFd> {
    let channel = kept.alone()?;
    signals::hold()?;
    setsid().or_internal(|| "begin a session".to_owned())?;
    // Other processes of the container may not look into this copy of the agent.
    prctl::set_dumpable(false).or_internal(|| "hide from ptrace".to_owned())?;
    Ok(channel)
}

fn execute(program: &CString, args: &[CString], env: &[CString]) -> Result<Infallible> {
    let Err(errno) = execve(program, args, env);
    let kind = match errno {
        Errno::ENOENT => ErrorKind::ExecutableNotFound,
        _ => ErrorKind::NotExecutable,
    };
    let text = format!("exec {}: {}", program.to_string_lossy(), reason(errno));
    Err(error(kind, text))
}
