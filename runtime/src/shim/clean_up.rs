//! `delete`: removes what a shim that has died has left of a container, without a shim.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use prost::Message;

use super::address::{self, Place};
use super::arguments::Arguments;
use super::messages::Deleted;
use super::rootfs;
use super::settings::{Options, Settings};
use crate::life_cycle;
use crate::oci::container_id::ContainerId;
use crate::state::{ContainerError, Root};

/// Status of a task that was killed.
const KILLED: u32 = 137;

/// Removes the container, and prints how it has ended.
///
/// # Errors
/// What could not be removed.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let bundle = arguments.bundle.clone().unwrap_or_else(|| PathBuf::from("."));
    let settings = Settings::read(&bundle).unwrap_or_else(|| {
        let place = Place { group: arguments.id.clone(), is_systemds: false };
        Settings::new(&Options::default(), &place, &arguments.namespace)
    });
    let id: ContainerId = arguments.id.parse()?;
    // This process has one thread, so it needs no other for that. containerd calls it also for what the shim has removed.
    let removed = match life_cycle::remove(&Root::new(Some(&settings.root)), &id, true) {
        Err(error) if matches!(error.downcast_ref(), Some(ContainerError::DoesNotExist(_))) => Ok(()),
        removed => removed,
    };
    if settings.has_members {
        remove_members(&Root::new(Some(&settings.root)), &id);
    }
    rootfs::unmount_all(&bundle)?;
    remove_socket(&bundle);
    removed?;
    let deleted = Deleted { pid: 0, exit_status: KILLED, exited_at: Some(SystemTime::now().into()) };
    io::stdout().write_all(&deleted.encode_to_vec()).context("stdout")
}

/// Removes the containers of a sandbox that has ended: where containerd knows a pod by its sandbox, it asks for nothing else.
fn remove_members(root: &Root, sandbox: &ContainerId) {
    for record in root.records() {
        if record.sandbox.as_deref() != Some(sandbox.as_str()) {
            continue;
        }
        let Ok(id) = record.id.parse() else { continue };
        let removed = match life_cycle::remove(root, &id, true) {
            Err(error) if matches!(error.downcast_ref(), Some(ContainerError::DoesNotExist(_))) => Ok(()),
            removed => removed,
        };
        let unmounted = rootfs::unmount_all(&record.bundle).map_err(anyhow::Error::from);
        if let Err(error) = removed.and(unmounted) {
            eprintln!("container {id} of the pod: {error:#}");
        }
    }
}

/// Removes the socket of the shim, unless one listens there: another container of the pod may have one again.
fn remove_socket(bundle: &Path) {
    let Some(socket) = address::read(bundle) else { return };
    if UnixStream::connect(&socket).is_err_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused) {
        // If it stays, the next shim of this pod replaces it.
        let _ = fs::remove_file(socket);
    }
}
