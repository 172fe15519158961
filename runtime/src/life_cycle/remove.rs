//! Removing a container: when it returns, nothing of it is left.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Context;

use stockade_protocol::agent::{ErrorKind, Purpose};

use super::status::has_ended_in_guest;
use super::{Status, network, resize, status};
use crate::log;
use crate::oci::container_id::ContainerId;
use crate::oci::hooks;
use crate::state::{ContainerError, Directory, Record, Root};
use crate::sys::deadline::Deadline;
use crate::sys::process::ProcessRef;
use crate::vm::agent::{AnswerDeadline, ClientError, Connection, call};
use crate::vm::{self, Control, Files};

/// How long an agent may take to forget a container before the host goes on without it.
const FORGETS_WITHIN: Duration = Duration::from_secs(3);

/// How long a VMM may take to release a container's files and disks.
const LETS_GO_WITHIN: Duration = Duration::from_secs(3);

/// How long a killed process may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// How long an engine may take to reap a relay that has ended. `ps` shows it until then; nothing else depends on it.
const REAPED_WITHIN: Duration = Duration::from_millis(200);

/// How long the relay of a stopped container may take to deliver the rest of its output.
const DELIVERS_WITHIN: Duration = Duration::from_secs(10);

/// Removes a container that does not run; with `force`, also one that runs. If its creator died before it had made
/// anything, the directory is removed, but the container "does not exist".
///
/// # Errors
/// [`ContainerError`], or what could not be removed.
pub fn remove(root: &Root, id: &ContainerId, force: bool) -> anyhow::Result<()> {
    if force {
        kill_complete(root, id);
        return force_remove(root.open(id)?, id);
    }
    let directory = root.open(id)?;
    let Some(record) = directory.read()? else {
        directory.remove()?;
        return Err(ContainerError::DoesNotExist(id.to_string()).into());
    };
    match status(&directory, &record) {
        Status::Created => {}
        other if other == Status::Stopped || has_ended_in_guest(&directory, &record) => {
            if let Some(relay) = record.relay.and_then(|relay| relay.open()) {
                relay.wait_end(DELIVERS_WITHIN);
            }
        }
        other => return Err(ContainerError::NotStopped { id: id.to_string(), status: other.name() }.into()),
    }
    release(directory, &record, false)
}

/// Kills the relay and the VM of a container that has been created, before its directory's lock is taken: a command
/// that holds the lock and waits for the guest then ends.
fn kill_complete(root: &Root, id: &ContainerId) {
    let record = root.peek(id).and_then(|directory| directory.read());
    let Ok(Some(record)) = record else { return };
    if record.complete {
        kill(&record);
    }
}

/// Kills the processes that stand for a container on the host: its relay and, if the VM is its own, its VMM. The agent
/// kills what is left of a member in the guest.
pub fn kill(record: &Record) {
    for process in [record.vmm, record.relay].into_iter().flatten().filter_map(|process| process.open()) {
        // It fails only where the process has ended in the meantime.
        let _ = process.signal(libc::SIGKILL);
    }
}

/// Removes a container in whatever state it is.
///
/// # Errors
/// What could not be removed.
pub fn force_remove(directory: Directory, id: &ContainerId) -> anyhow::Result<()> {
    match directory.read() {
        Ok(Some(record)) => release(directory, &record, false),
        Ok(None) => directory.remove(),
        Err(error) => {
            tracing::warn!("{error:#}; the container's cgroup may remain");
            end_unrecorded(&directory, id).context("the container's record cannot be read, and its VM")?;
            directory.remove()
        }
    }
}

/// Ends a container whose record cannot be read: the agent forgets it, then its relay ends, and with that its VM.
fn end_unrecorded(directory: &Directory, id: &ContainerId) -> anyhow::Result<()> {
    let Ok(vmm) = Control::connect(directory.as_fd()) else { return Ok(()) };
    let mut wait = AnswerDeadline::without_reason(Deadline::within(FORGETS_WITHIN));
    match Connection::open(directory.as_fd(), Purpose::Control, &mut wait)
        .and_then(|mut control| control.call(call::Delete(id.to_string()), &mut wait))
    {
        Err(ClientError::Agent(error)) if error.kind != ErrorKind::NotFound => return Err(error.into()),
        result => tracing::debug!("delete in the guest: {result:?}"),
    }
    if !directory.is_in_a_sandbox() && !vmm.wait_end(ENDS_WITHIN) {
        anyhow::bail!("does not end; kill the process stockade-vmm {id}");
    }
    Ok(())
}

/// Ends and removes what the record names, removes the directory, and runs the `poststop` hooks. `is_mute` says that
/// the guest is known not to answer; it is not asked again.
///
/// # Errors
/// What could not be removed.
pub fn release(directory: Directory, record: &Record, is_mute: bool) -> anyhow::Result<()> {
    log::about(&record.id, record.sandbox.as_deref());
    let namespace = network::namespace_to_leave(record);
    end(record.relay).context("the container's relay on the host")?;
    if let Some(sandbox) = &record.sandbox
        && leave(&directory, sandbox, record, is_mute)?
    {
        resize::give_back(&directory, record);
    }
    end(record.vmm).context("the container's VM")?;
    // The watcher has ended, so what it has saved does not change any more.
    network::leave(&directory.follow_network(record.clone()), namespace.as_ref())?;
    if let Some(cgroup) = &record.cgroup {
        cgroup.remove()?;
    }
    directory.remove()?;
    // Each hook is run, and a failure cannot undo the removal.
    for hook in &record.hooks.poststop {
        let state = record.state_json("stopped", None);
        if let Err(error) = hooks::run(std::slice::from_ref(hook), &state, &record.bundle, None) {
            tracing::warn!("{error}");
        }
    }
    Ok(())
}

/// Takes a member out of its sandbox's VM; false if there is no VM any more, or if its guest does not answer. That does
/// not stop the removal, because the VMM takes the container's files away from the guest.
fn leave(directory: &Directory, sandbox: &str, member: &Record, is_mute: bool) -> anyhow::Result<bool> {
    let vmm = directory.neighbour(sandbox).and_then(|record| record.vmm).and_then(|vmm| vmm.open());
    let Some(vmm) = vmm else { return Ok(false) };
    if !directory.is_in_a_sandbox() {
        // Its creator died before the directory had the sockets of the VM.
        return Ok(false);
    }
    let within = if is_mute { Duration::ZERO } else { FORGETS_WITHIN };
    let mut wait = AnswerDeadline::without_reason(Deadline::within(within));
    let forgotten = Connection::open(directory.as_fd(), Purpose::Control, &mut wait)
        .and_then(|mut control| control.call(call::Delete(member.id.clone()), &mut wait));
    let answers = match forgotten {
        Ok(()) => true,
        Err(ClientError::Agent(error)) if error.kind == ErrorKind::NotFound => true,
        // When a VM ends, its members end with it.
        Err(_) if vmm.wait_end(Duration::ZERO) => return Ok(false),
        Err(error) => {
            tracing::warn!(
                "the guest of sandbox {sandbox:?} may keep the container's processes, without its files: {error}"
            );
            false
        }
    };
    let deadline = Deadline::within(LETS_GO_WITHIN);
    if !member.disks.is_empty()
        && let Ok(mut control) = Control::connect_by(directory.as_fd(), deadline)
    {
        for slot in &member.disks {
            if let Err(error) = control.call(vm::call::RemoveDevice(*slot)) {
                tracing::warn!("the VM keeps a disk of the container until it ends: {error}");
            }
        }
    }
    let removed = Files::connect(directory.as_fd(), vmm.as_fd())
        .and_then(|mut files| files.remove_share(member.share()));
    if let Err(error) = removed {
        // The trees were not shared yet, the VM has ended meanwhile, or a file hangs and will be closed with the VM.
        tracing::debug!("{error}");
    }
    Ok(answers && !vmm.wait_end(Duration::ZERO))
}

/// Kills a process that still lives, and waits for its end.
fn end(process: Option<ProcessRef>) -> anyhow::Result<()> {
    let Some((process, pidfd)) = process.and_then(|process| Some((process, process.find()?))) else {
        return Ok(());
    };
    // It fails only where the process has ended already.
    let _ = pidfd.signal(libc::SIGKILL);
    if !pidfd.wait_end(ENDS_WITHIN) {
        anyhow::bail!("process {} does not end, {ENDS_WITHIN:?} after it was killed", process.pid);
    }
    if !pidfd.wait_reaped(REAPED_WITHIN) {
        tracing::debug!("process {} has ended, but its parent has not reaped it", process.pid);
    }
    Ok(())
}
