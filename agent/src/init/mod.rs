//! A container's init, from clone to execve: it builds the container around itself.
//!
//! It is a copy of the agent in the container's new namespaces and cgroup. It talks to the agent over one
//! socket pair: it reports that all is built (with its terminal), or what failed; it waits for one byte, the
//! start; execve closes the socket, so its end says that the program runs.

use std::{
    convert::Infallible,
    ffi::CString,
    fs::File,
    io::{IoSlice, IoSliceMut},
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::{
        prctl,
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
        socket::{CmsgIterator, ControlMessage, ControlMessageOwned, MsgFlags, recv, recvmsg, sendmsg},
        stat::{Mode, umask},
    },
    unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, setsid},
};
use stockade_protocol::{container::Container, frame};

use crate::{
    clone::{self, Fork},
    error::{AgentError, Context, ErrorKind, Result, error, reason},
    stdio::ProcessPipes,
};

mod capabilities;
mod credentials;
mod devices;
mod environment;
mod executable;
mod hostname;
mod masked_paths;
mod mounts;
mod namespaces;
mod oom_score;
mod resolve;
mod rlimits;
mod rootfs;
mod seccomp;
mod sysctl;
mod terminal;

pub use namespaces::Joined;
pub use rlimits::MOST_OPEN_FILES;

/// Where the channel to the agent is in the child.
const CHANNEL: i32 = 3;

/// Longest report, in bytes.
const REPORT_LIMIT: usize = 64 << 10;

/// Whether this process was cloned for a container.
static IS_CONTAINER_PROCESS: AtomicBool = AtomicBool::new(false);

/// False in the agent itself.
pub fn is_container_process() -> bool {
    IS_CONTAINER_PROCESS.load(Ordering::Relaxed)
}

/// What an init has to say.
#[derive(Debug)]
pub enum Report {
    /// Nothing new.
    None,
    /// The container is built.
    Built {
        /// What could not be applied.
        warnings: Vec<String>,
        /// The master of its terminal.
        terminal: Option<OwnedFd>,
    },
    /// A step failed, and the init ends.
    Failed(AgentError),
    /// It has executed its program, or has been killed.
    Closed,
}

/// Clones a container's init. Without pipes it makes a terminal.
pub fn spawn(
    spec: &Container,
    joined: &Joined,
    cgroup: &File,
    channel: OwnedFd,
    pipes: Option<ProcessPipes>,
) -> Result<Pid> {
    joined.for_children(|| {
        // SAFETY: the agent has one thread.
        let fork = unsafe { clone::fork_into(namespaces::to_clone(&spec.namespaces), cgroup) };
        match fork.or_internal(|| "clone the container's init".to_owned())? {
            Fork::Parent(pid) => Ok(pid),
            Fork::Child => {
                IS_CONTAINER_PROCESS.store(true, Ordering::Relaxed);
                run(spec, joined, channel, pipes)
            }
        }
    })?
}

fn run(spec: &Container, joined: &Joined, channel: OwnedFd, pipes: Option<ProcessPipes>) -> ! {
    let failure = match leave_the_agent(channel, pipes) {
        Ok(channel) => {
            let Err(failure) = build_and_execute(spec, joined, &channel);
            // The agent has either heard this or is gone.
            let _ = report(&channel, &Err(failure.clone()), None);
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
fn build_and_execute(spec: &Container, joined: &Joined, channel: &OwnedFd) -> Result<Infallible> {
    let process = &spec.process;
    let mut warnings = Vec::new();
    umask(Mode::empty());
    namespaces::enter(&spec.namespaces, joined)?;
    oom_score::apply(process.oom_score_adj)?;
    sysctl::apply(&spec.sysctl)?;
    hostname::apply(spec)?;

    let mut master = None;
    if namespaces::has_own_mounts(&spec.namespaces, &mut warnings) {
        let root = rootfs::open(&spec.rootfs)?;
        let mounted = mounts::mount_all(&root, &spec.mounts)?;
        devices::create_all(&root, spec)?;
        if let Some(size) = process.terminal {
            master = Some(terminal::open(&root, size, process.user.uid)?);
        }
        rootfs::create_folder(&root, &process.cwd)?;
        rootfs::pivot(root)?;
        mounted.finish()?;
        masked_paths::apply(&spec.masked_paths, &spec.readonly_paths)?;
        rootfs::finish(&spec.rootfs)?;
    } else if let Some(size) = process.terminal {
        master = Some(terminal::open(&rootfs::current()?, size, process.user.uid)?);
    }

    let env = environment::prepare(process)?;
    rlimits::apply(&process.rlimits)?;
    if process.no_new_privileges {
        prctl::set_no_new_privs().or_internal(|| "set no_new_privs".to_owned())?;
    }
    let capabilities = capabilities::limit(process.capabilities)?;
    // Without no_new_privs only a privileged process may load a filter, and so before it becomes its user.
    let (early, late) =
        if process.no_new_privileges { (&[][..], &spec.seccomp[..]) } else { (&spec.seccomp[..], &[][..]) };
    seccomp::load(early)?;
    credentials::apply(&process.user)?;
    capabilities.apply()?;
    chdir(process.cwd.as_str()).or_spec(|| format!("change to the working folder {:?}", process.cwd))?;
    let program = executable::find(process)?;
    let args = c_strings("process.args", &process.args)?;

    report(channel, &Ok(warnings), master)?;
    wait_for_start(channel)?;
    // As late as possible: a profile need not allow what a runtime does.
    seccomp::load(late)?;
    execute(&program, &args, &env)
}

/// Lets go of everything of the agent's but the channel: another container's streams would not end while a
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

fn report(
    channel: &OwnedFd,
    message: &Result<Vec<String>, AgentError>,
    master: Option<OwnedFd>,
) -> Result<()> {
    let frame = frame::encode(message)
        .map_err(|cause| error(ErrorKind::Internal, format!("report to the agent: {cause}")))?;
    let descriptors: Vec<i32> = master.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &[] } else { &control[..] };
    sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(&frame)], control, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .or_internal(|| "report to the agent".to_owned())
}

/// What an init has reported, without waiting.
pub fn hear(channel: &OwnedFd) -> Report {
    let mut packet = vec![0; REPORT_LIMIT];
    let mut control = cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(&mut packet)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let (length, terminal) = match recvmsg::<()>(channel.as_raw_fd(), &mut parts, Some(&mut control), flags) {
        Err(Errno::EAGAIN | Errno::EINTR) => return Report::None,
        Err(_) => return Report::Closed,
        Ok(message) if message.bytes == 0 => return Report::Closed,
        Ok(message) => (message.bytes, message.cmsgs().ok().and_then(received_descriptor)),
    };
    match frame::read::<Result<Vec<String>, AgentError>>(&mut &packet[..length], REPORT_LIMIT) {
        Ok(Some(Ok(warnings))) => Report::Built { warnings, terminal },
        Ok(Some(Err(failure))) => Report::Failed(failure),
        Ok(None) | Err(_) => {
            Report::Failed(error(ErrorKind::Internal, "the container's init sent an unreadable report"))
        }
    }
}

fn received_descriptor(mut control: CmsgIterator<'_>) -> Option<OwnedFd> {
    control.find_map(|message| match message {
        // SAFETY: the kernel has just made these descriptors for this process, and nobody else knows them.
        ControlMessageOwned::ScmRights(fds) => fds.first().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }),
        _ => None,
    })
}

fn wait_for_start(channel: &OwnedFd) -> Result<()> {
    let mut byte = [0];
    loop {
        match recv(channel.as_raw_fd(), &mut byte, MsgFlags::empty()) {
            Ok(1) => return Ok(()),
            Err(Errno::EINTR) => {}
            _ => return Err(error(ErrorKind::Internal, "the container was deleted before its start")),
        }
    }
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
