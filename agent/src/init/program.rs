//! From clone to execve: what every process of a container goes through, be it the init or an exec.
//!
//! It is a copy of the agent in its new namespaces and cgroup, lets go of the agent, makes its surroundings, becomes
//! what `process` says, reports, waits for its start and executes the program.

use std::{
    convert::Infallible,
    ffi::CString,
    fs::File,
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    errno::Errno,
    sched::CloneFlags,
    sys::{
        prctl,
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
        stat::{Mode, umask},
    },
    unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, setsid},
};
use stockade_protocol::container::{Hook, Process, SeccompFilter};

use super::{
    Joined, c_strings, capabilities, credentials, environment, executable, oom_score, report, rlimits,
    seccomp, start_hooks,
};
use crate::{
    clone::{self, Fork},
    error::{Context, ErrorKind, Result, error, reason},
    stdio::{ProcessPipes, Stdio},
};

/// Where the channel to the agent is in the child.
const CHANNEL: i32 = 3;

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
    let (stdio, pipes) = match process.terminal {
        Some(_) => (Stdio::default(), None),
        None => {
            let (stdio, pipes) = Stdio::pipes(process.user.uid)?;
            (stdio, Some(pipes))
        }
    };
    let (ours, theirs) = report::channel()?;
    let pid = joined.for_children(|| {
        // SAFETY: the agent has one thread.
        let fork = unsafe { clone::fork_into(namespaces, cgroup) };
        match fork.or_internal(|| "clone the process".to_owned())? {
            Fork::Parent(pid) => Ok(pid),
            Fork::Child => {
                IS_CONTAINER_PROCESS.store(true, Ordering::Relaxed);
                run(process, seccomp, hooks, theirs, pipes, surround)
            }
        }
    })??;
    Ok(Spawned { pid, stdio, channel: ours })
}

fn run(
    process: &Process,
    seccomp: &[SeccompFilter],
    hooks: &[Hook],
    channel: OwnedFd,
    pipes: Option<ProcessPipes>,
    surround: impl FnOnce() -> Result<Surroundings>,
) -> ! {
    let failure = match leave_the_agent(channel, pipes) {
        Ok(channel) => {
            let Err(failure) = prepare_and_execute(process, seccomp, hooks, &channel, surround);
            // The agent has either heard this or is gone.
            let _ = report::send(&channel, &Err(failure.clone()), None);
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
    let Surroundings { warnings, terminal } = surround()?;

    let env = environment::prepare(process)?;
    rlimits::apply(&process.rlimits)?;
    if process.no_new_privileges {
        prctl::set_no_new_privs().or_internal(|| "set no_new_privs".to_owned())?;
    }
    let capabilities = capabilities::limit(process.capabilities)?;
    // Without no_new_privs only a privileged process may load a filter, and so before it becomes its user.
    let (early, late) = if process.no_new_privileges { (&[][..], seccomp) } else { (seccomp, &[][..]) };
    seccomp::load(early)?;
    credentials::apply(&process.user)?;
    capabilities.apply()?;
    chdir(process.cwd.as_str()).or_spec(|| format!("change to the working folder {:?}", process.cwd))?;
    let program = executable::find(process)?;
    let args = c_strings("process.args", &process.args)?;

    report::send(channel, &Ok(warnings), terminal)?;
    report::wait_for_start(channel)?;
    start_hooks::run(hooks)?;
    // As late as possible: a profile need not allow what a runtime does.
    seccomp::load(late)?;
    execute(&program, &args, &env)
}

/// Lets go of everything of the agent's but the channel: another process's streams would not end while a
/// copy of them is open here.
fn leave_the_agent(channel: OwnedFd, pipes: Option<ProcessPipes>) -> Result<OwnedFd> {
    if let Some(pipes) = &pipes {
        dup2_stdin(&pipes.stdin)
            .and_then(|()| dup2_stdout(&pipes.stdout))
            .and_then(|()| dup2_stderr(&pipes.stderr))
            .or_internal(|| "set the standard streams".to_owned())?;
    }
    // The numbers are closed below, all at once.
    mem::forget(pipes);
    let channel = if channel.as_raw_fd() == CHANNEL {
        channel
    } else {
        // SAFETY: whatever was at this number in the agent, nothing here uses it.
        let fd = unsafe { libc::dup3(channel.as_raw_fd(), CHANNEL, libc::O_CLOEXEC) };
        mem::forget(channel);
        Errno::result(fd).or_internal(|| "set the channel to the agent".to_owned())?;
        // SAFETY: dup3 has just made it, and its number's former owner is never dropped here.
        unsafe { OwnedFd::from_raw_fd(CHANNEL) }
    };
    // SAFETY: the owners of these numbers belong to the agent's code, which this process does not run any
    // more.
    let closed = unsafe { libc::close_range(CHANNEL as libc::c_uint + 1, libc::c_uint::MAX, 0) };
    Errno::result(closed).or_internal(|| "close the agent's descriptors".to_owned())?;

    SigSet::empty().thread_set_mask().or_internal(|| "unblock signals".to_owned())?;
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of this process.
    unsafe { sigaction(Signal::SIGPIPE, &default) }.or_internal(|| "reset SIGPIPE".to_owned())?;
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
