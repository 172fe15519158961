//! Creations whose creator has died: an engine that gives up kills the command, and nobody deletes what it does not know.
//!
//! The relay ends with its creator, and with it a VM of its own; what is left is a directory, a cgroup, interfaces. The next
//! command that makes or lists containers removes that.

use super::remove;
use crate::oci::container_id::ContainerId;
use crate::state::{Directory, Root};
use crate::sys::process::ProcessRef;

/// Removes what is left of them. A member of a pod waits for the next container of that pod, because its guest is asked to
/// forget it, and no other pod's command waits for that guest.
pub fn remove_abandoned(root: &Root, sandbox: Option<&ContainerId>) {
    for (id, directory) in root.abandoned() {
        if is_others(&directory, sandbox) {
            continue;
        }
        match remove::force_remove(directory, &id) {
            Ok(()) => tracing::debug!("removed container {id}, whose creator had died"),
            Err(error) => tracing::warn!("container {id}, whose creator has died: {error:#}"),
        }
    }
}

/// Whether it is in the VM of another sandbox, which lives.
fn is_others(directory: &Directory, sandbox: Option<&ContainerId>) -> bool {
    let Ok(Some(record)) = directory.read() else { return false };
    let Some(its) = record.sandbox.filter(|its| sandbox.is_none_or(|ours| ours.as_str() != its)) else {
        return false;
    };
    let vmm = directory.neighbour(&its).and_then(|record| record.vmm);
    vmm.as_ref().is_some_and(ProcessRef::is_alive)
}
