//! Removing a container: when it returns, nothing of it is left.

use std::time::Duration;

use anyhow::Context;

use super::{Status, status};
use crate::container_id::ContainerId;
use crate::error::ContainerError;
use crate::state::{Folder, Record, Root};
use crate::sys::process::ProcessRef;

/// How long a killed process may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// How long an engine may take to reap it. `ps` shows it until then; nothing else depends on it.
const REAPED_WITHIN: Duration = Duration::from_millis(200);

/// How long the relay of a stopped container may take to deliver the rest of its output.
const DELIVERS_WITHIN: Duration = Duration::from_secs(10);

/// Removes a container that does not run; `force` also one that does.
///
/// # Errors
/// [`ContainerError`], or what could not be removed.
pub fn remove(root: &Root, id: &ContainerId, force: bool) -> anyhow::Result<()> {
    let folder = root.open(id)?;
    if force {
        return force_remove(folder);
    }
    let Some(record) = folder.read()? else { return folder.remove() };
    match status(&folder, &record) {
        Status::Stopped => {
            if let Some(relay) = record.relay.and_then(|relay| relay.open()) {
                relay.wait_end(DELIVERS_WITHIN);
            }
        }
        Status::Created => {}
        other => return Err(ContainerError::NotStopped { id: id.to_string(), status: other.name() }.into()),
    }
    release(folder, &record)
}

/// Removes a container whatever it is doing.
///
/// # Errors
/// What could not be removed.
pub fn force_remove(folder: Folder) -> anyhow::Result<()> {
    match folder.read() {
        Ok(Some(record)) => release(folder, &record),
        Ok(None) => folder.remove(),
        Err(error) => {
            tracing::warn!("{error:#}");
            folder.remove()
        }
    }
}

/// Ends what a record tells of, and removes it and its folder.
///
/// # Errors
/// What could not be removed.
pub fn release(folder: Folder, record: &Record) -> anyhow::Result<()> {
    end(record.relay).context("the container's stand-in on the host")?;
    end(record.vmm).context("the container's VM")?;
    if let Some(cgroup) = &record.cgroup {
        cgroup.remove()?;
    }
    folder.remove()
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
