//! Creations whose creator has died: an engine that gives up kills the command, and nobody deletes a container that
//! nobody knows.
//!
//! The relay ends with its creator, and the container's own VM ends with the relay; what is left is a directory, a
//! cgroup and interfaces. The next command that makes or lists containers removes them.

use super::remove;
use crate::oci::container_id::ContainerId;
use crate::state::{Directory, Root};
use crate::sys::process::ProcessRef;

/// Removes what is left of such containers. What is left of a pod's member is removed when the next container of that
/// pod is created, because its guest has to forget the member, and no command for another pod should wait for that
/// guest.
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

/// Whether the container is in the VM of another sandbox that lives.
fn is_others(directory: &Directory, sandbox: Option<&ContainerId>) -> bool {
    let Ok(Some(record)) = directory.read() else { return false };
    let Some(its) = record.sandbox.filter(|its| sandbox.is_none_or(|ours| ours.as_str() != its)) else {
        return false;
    };
    let vmm = directory.neighbour(&its).and_then(|record| record.vmm);
    vmm.as_ref().is_some_and(ProcessRef::is_alive)
}
