//! Another process in a container, or in the guest itself, with a relay of its own.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nix::sys::signalfd::SignalFd;
use stockade_protocol::agent::{self, ErrorKind, ProcessId, Purpose};
use stockade_protocol::container::Process;

use super::{Handle, Status, no_longer_runs, settings};
use crate::cgroup::Cgroup;
use crate::lower::security_labels::{HostLabel, Labels};
use crate::relay::preserve_fds::Preserved;
use crate::relay::{Namespaces, Plan, Relay, held_streams};
use crate::state::{ContainerError, pid_file};
use crate::sys::process::ProcessRef;
use crate::sys::selinux;
use crate::sys::signals;
use crate::sys::terminal::{self, Pty, RawMode};
use crate::vm::Shared;
use crate::vm::agent::{ClientError, Connection, ProcessConnections, Watched, call, warn};

/// How long an exec waits for a paused container to be resumed: practically for ever.
const UNTIL_RESUMED: Duration = Duration::from_secs(u32::MAX as u64);

/// A request to execute a process.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The container.
    pub handle: &'a Handle,
    /// The place in its VM: the container's ID, or [`agent::GUEST`].
    pub container: &'a str,
    /// The process.
    pub process: Process,
    /// What security modules apply to it.
    pub labels: Option<Labels>,
    /// The label of its relay on a host with SELinux.
    pub host_label: Option<HostLabel>,
    /// A cgroup below the container's in the guest; empty for exactly that one.
    pub cgroup: Option<String>,
    /// Whether a paused container is accepted: the process begins when the container is resumed.
    pub ignore_paused: bool,
    /// The file to write the relay's PID to.
    pub pid_file: Option<&'a Path>,
    /// The socket to send the terminal's master to.
    pub console_socket: Option<&'a Path>,
    /// The socket to send the relay's pidfd to.
    pub pidfd_socket: Option<&'a Path>,
    /// Its descriptors from 3 on.
    pub preserved: Preserved,
    /// Whether the process outlives the command.
    pub detached: bool,
}

/// A process that runs while the command that has started it still lives.
#[derive(Debug)]
pub struct Executed {
    /// Its relay, which still ends with the command.
    pub relay: Relay,
    /// The signals that the command gets from now on.
    pub signals: SignalFd,
    /// The command's own terminal, where the process has one.
    pub raw: Option<RawMode>,
}

/// Executes the process.
///
/// # Errors
/// What failed; nothing of the process is left then.
pub fn exec(exec: &Exec<'_>) -> anyhow::Result<Executed> {
    let terminal = exec.process.terminal.is_some();
    terminal::check(terminal, exec.console_socket, exec.detached)?;
    let container_relay = living_relay(exec.handle)?;
    let (relay_fd, vmm) = match (container_relay.open(), exec.handle.vmm()) {
        (Some(relay), Some(vmm)) => (relay, vmm),
        _ => return Err(ContainerError::ExecStopped.into()),
    };
    let mut process = exec.process.clone();
    exec.preserved.check(exec.handle.directory.as_fd())?;
    process.streams = exec.preserved.kinds();
    process.terminal = process.terminal.map(|size| terminal::initial_size(size, exec.console_socket));
    let interrupts = signals::block_all().context("cannot block signals")?;
    let directory = exec.handle.directory.as_fd();
    let mut vm = Shared::new(vmm, directory, interrupts)?;
    // A container that is not paused answers at once.
    if exec.ignore_paused && exec.handle.status() == Status::Paused {
        vm = vm.with_timeout(UNTIL_RESUMED);
    }

    // The process ends with this connection until it has one of its own.
    let id = ProcessId { container: exec.container.to_owned(), exec: Some(unique_name()) };
    let request = agent::Exec {
        id: id.clone(),
        process,
        cgroup: exec.cgroup.clone(),
        ignore_paused: exec.ignore_paused,
    };
    let confined = settings::confine(&exec.handle.directory, &id, exec.labels.as_ref(), &mut vm)?;
    let mut control = match confined {
        Some(confined) => confined,
        None => {
            Connection::open(directory, Purpose::Control, &mut vm).map_err(|e| explain(exec.handle, e))?
        }
    };
    warn(control.call(call::MakeProcess(request), &mut vm).map_err(|e| explain(exec.handle, e))?);

    let pty = match (exec.console_socket, exec.process.terminal) {
        (Some(_), Some(size)) => Some(Pty::open(size).context("cannot open a pseudo-terminal")?),
        _ => None,
    };
    let cgroup = exec.handle.record.cgroup.as_ref().map(Cgroup::open).transpose()?;
    let heir = held_streams::connect(directory);
    let relay = Relay::start(&Plan {
        namespaces: Namespaces::Of(relay_fd.as_fd()),
        args: &exec.process.args,
        cgroup: cgroup.as_ref().map(AsFd::as_fd),
        terminal,
        slave: pty.as_ref().map(|pty| pty.slave.as_fd()),
        preserved: &exec.preserved,
        notify: None,
        label: exec.host_label.as_ref().filter(|_| selinux::is_enabled()).map(|host| &*host.label),
        heir: heir.as_ref().map(AsFd::as_fd),
    })?;
    let mut start = || -> anyhow::Result<(SignalFd, Option<RawMode>)> {
        relay.prepared()?;
        settings::check_label(&relay, exec.host_label.as_ref())?;
        relay.hand_over(&ProcessConnections::open(
            directory,
            &id,
            terminal.then(|| Watched::of(exec.console_socket.is_some())),
            &exec.preserved.kinds(),
            &mut vm,
        )?)?;
        if let (Some(socket), Some(pty)) = (exec.console_socket, &pty) {
            terminal::send_to(socket, "--console-socket", "/dev/ptmx", pty.master.as_fd())?;
        }
        let raw = RawMode::for_process(terminal, exec.detached)?;
        control.call(call::Start(id.clone()), &mut vm).map_err(|e| explain(exec.handle, e))?;
        if let Some(socket) = exec.pidfd_socket {
            terminal::send_to(socket, "--pidfd-socket", "pidfd", relay.process.pidfd.as_fd())?;
        }
        if let Some(path) = exec.pid_file {
            pid_file::write(path, relay.process.pid)?;
        }
        Ok((vm.take_interrupts().context("no signals to wait for")?, raw))
    };
    match start() {
        Ok((signals, raw)) => Ok(Executed { relay, signals, raw }),
        Err(error) => {
            relay.process.kill();
            Err(error)
        }
    }
}

fn living_relay(handle: &Handle) -> Result<ProcessRef, ContainerError> {
    handle.relay().map_err(|_| match handle.status() {
        Status::Creating => ContainerError::ExecCreating,
        _ => ContainerError::ExecStopped,
    })
}

/// A name that is unique among the execs of a container: commands that live at the same time have different PIDs, and
/// commands that live one after the other have different start times.
fn unique_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    format!("{}-{}", std::process::id(), now.as_nanos())
}

/// Translates the agent's refusal, or the end of the VM, into the errors that callers know.
fn explain(handle: &Handle, error: ClientError) -> anyhow::Error {
    match error {
        // The error concerns the program or the specification, and not the container.
        ClientError::Agent(error)
            if matches!(
                error.kind,
                ErrorKind::ExecutableNotFound | ErrorKind::NotExecutable | ErrorKind::Spec
            ) =>
        {
            error.into()
        }
        error => match (handle.status(), &error) {
            (Status::Stopped, _) => ContainerError::ExecStopped.into(),
            (Status::Paused, _) => ContainerError::ExecPaused.into(),
            // The container has ended, and its relay will notice that soon.
            (_, ClientError::Agent(refusal))
                if refusal.kind == ErrorKind::WrongState || no_longer_runs(&error) =>
            {
                ContainerError::ExecStopped.into()
            }
            _ => error.into(),
        },
    }
}
