//! From clone to execve: the steps of every process of a container, be it the init or an exec.
//!
//! It is a copy of the agent in its new namespaces and cgroup. It closes what belongs to the agent, makes its mounts,
//! becomes what `process` says, reports, waits for its start and executes the program.

use std::{
    convert::Infallible,
    ffi::CString,
    mem,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd::{ForkResult, Pid, execve, setsid},
};
use stockade_protocol::container::{Hook, Process, StreamKind};

use super::{
    ForAll, c_strings, capabilities, confinement, cpu_affinity, credentials, descriptors::Kept, environment,
    executable, io_priority, masked_paths, memory_policy, oom_score, personality, report, rlimits, scheduler,
    seccomp, shared_files, signals, start_hooks, working_directory,
};
use crate::{
    error::{Context, ErrorKind, Result, error, reason},
    stdio::Stdio,
};

/// Whether this process was cloned for a container.
static IS_CONTAINER_PROCESS: AtomicBool = AtomicBool::new(false);

/// The calling process, to calls that take a PID.
const MYSELF: Pid = Pid::from_raw(0);

/// Whether this process was cloned for a container; false in the agent itself.
pub fn is_container_process() -> bool {
    IS_CONTAINER_PROCESS.load(Ordering::Relaxed)
}

/// A process that has been cloned.
#[derive(Debug)]
pub struct Spawned {
    /// Its PID in the guest's root PID namespace.
    pub pid: Pid,
    /// The agent's side of its streams; empty until it has reported, if it makes a terminal.
    pub stdio: Stdio,
    /// The agent's end of the channel to it.
    pub channel: OwnedFd,
}

/// What a process has set up before it becomes what `process` says.
#[derive(Debug, Default)]
pub struct Setup {
    /// What could not be applied, one sentence each.
    pub warnings: Vec<String>,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
    /// Its sd_notify(3) socket.
    pub notify: Option<OwnedFd>,
    /// Single files that are shared with the host. They stay in the process.
    pub shared_files: Vec<OwnedFd>,
}

/// A description of what a process is to become.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// `process`.
    pub process: &'a Process,
    /// The settings for every process of its container.
    pub for_all: ForAll<'a>,
    /// The hooks that run between its start and its program.
    pub hooks: &'a [Hook],
    /// The guest's ID for `process.user.uid`.
    pub owner: u32,
}

/// Makes a process by `fork`; the process calls `enter`, which enters its namespaces and makes its mounts. `enter` may
/// fork another process that does so instead.
pub fn spawn<T>(
    job: &Job<'_>,
    fork: impl FnOnce() -> Result<ForkResult>,
    enter: impl FnOnce(&OwnedFd) -> Result<T>,
    set_up: impl FnOnce(T) -> Result<Setup>,
) -> Result<Spawned> {
    let (mut stdio, pipes) = match job.process.terminal {
        Some(_) => (Stdio::default(), None),
        None => {
            let (stdio, pipes) = Stdio::pipes(job.owner)?;
            (stdio, Some(pipes))
        }
    };
    let mut extra = stdio.add_extra(&job.process.streams, job.owner)?;
    let nulls = job.process.streams.iter().zip(&mut extra).filter(|(kind, _)| **kind == StreamKind::Null);
    for (_, end) in nulls {
        *end = Some(masked_paths::null_for_a_process()?);
    }
    let (ours, channel) = report::channel()?;
    let kept = Kept { pipes, extra, channel };
    match fork()? {
        ForkResult::Parent { child: pid } => Ok(Spawned { pid, stdio, channel: ours }),
        ForkResult::Child => {
            IS_CONTAINER_PROCESS.store(true, Ordering::Relaxed);
            run(job, kept, enter, set_up)
        }
    }
}

fn run<T>(
    job: &Job<'_>,
    kept: Kept,
    enter: impl FnOnce(&OwnedFd) -> Result<T>,
    set_up: impl FnOnce(T) -> Result<Setup>,
) -> ! {
    let failure = match leave_the_agent(kept) {
        Ok(channel) => {
            let set_up = || set_up(enter(&channel)?);
            let Err(failure) = prepare_and_execute(job, &channel, set_up);
            // The agent has either read this or is gone.
            let _ = report::send(&channel, Err(failure.clone()));
            failure
        }
        Err(failure) => failure,
    };
    // Not exit(): what the agent had registered for its own end is not this process's business.
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(exit_status(failure.kind)) }
}

/// The exit status that shells use for an error of this kind.
fn exit_status(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::ExecutableNotFound => 127,
        ErrorKind::NotExecutable => 126,
        _ => 1,
    }
}

/// The steps, in the order of dependence: what needs the guest's /proc or privileges comes first.
fn prepare_and_execute(
    job: &Job<'_>,
    channel: &OwnedFd,
    set_up: impl FnOnce() -> Result<Setup>,
) -> Result<Infallible> {
    let Job { process, for_all, hooks, owner: _ } = *job;
    umask(Mode::empty());
    cpu_affinity::begin(&process.scheduling)?;
    oom_score::apply(process.oom_score_adj)?;
    rlimits::make_room(&process.rlimits)?;
    let confinement = confinement::prepare(for_all.confinement)?;
    let mut setup = set_up()?;

    let env = environment::prepare(process, setup.notify.is_some())?;
    memory_policy::apply(for_all.memory_policy, &mut setup.warnings)?;
    personality::apply(for_all.personality)?;
    cpu_affinity::finish(&process.scheduling)?;
    // In a user namespace the agent does it.
    if for_all.ids.is_none() {
        scheduler::apply(MYSELF, process.scheduling.scheduler.as_ref())?;
        io_priority::apply(MYSELF, process.scheduling.io_priority)?;
    }
    rlimits::apply(&process.rlimits)?;
    if process.no_new_privileges {
        prctl::set_no_new_privs().or_internal(|| "set no_new_privs".to_owned())?;
    }
    if let Some(confinement) = confinement {
        confinement.apply()?;
    }
    let needs_privilege = !for_all.seccomp.is_empty() && !process.no_new_privileges;
    let directory = working_directory::enter_early(&process.cwd)?;
    let capabilities = capabilities::limit(process.capabilities, needs_privilege)?;
    credentials::apply(&process.user)?;
    capabilities.apply()?;
    directory.enter()?;
    let program = executable::find(process)?;
    let args = c_strings("process.args", &process.args)?;

    let files = mem::take(&mut setup.shared_files);
    report::send(channel, Ok(setup))?;
    signals::end_by_default()?;
    report::wait_for_start(channel)?;
    files.iter().for_each(shared_files::look_again);
    start_hooks::run(hooks, &env)?;
    // This is the last step, because a profile may forbid what a runtime does.
    if needs_privilege {
        capabilities::be_allowed_to_load_a_filter()?;
    }
    seccomp::load(for_all.seccomp)?;
    execute(&program, &args, &env)
}

/// Gives up the agent's descriptors, signals and session.
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
