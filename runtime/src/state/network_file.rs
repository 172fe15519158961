//! What the watcher of a network namespace saves about a VM's network: `ROOT/ID/network/state.json`.
//!
//! A guest that has taken the watcher over can write anything there, and nowhere else. So root uses the file only to
//! find the interfaces whose redirects are removed, in the namespace that the record names. No link there is followed,
//! and no file is read beyond a limit.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::directory::Directory;
use super::record::Record;
use crate::network::{Connected, MAX_INTERFACES, Network, Picture};
use crate::oci::container_id::ContainerId;
use crate::sys::replacement::Replacement;

/// The name of the directory, the only one that the watcher may write to.
const DIRECTORY: &str = "network";

const FILE: &str = "state.json";

/// Longest file that is read, in bytes.
const LIMIT: u64 = 4 << 20;

/// The part of [`Network`] that changes while the container runs.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    interfaces: Vec<Connected>,
    told: Picture,
}

impl Directory {
    /// The path of the container's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory of another container in the same root, without waiting for a command that holds the lock.
    ///
    /// # Errors
    /// As [`super::Root::open`].
    pub fn peek_neighbour(&self, id: &str) -> anyhow::Result<Self> {
        let id: ContainerId = id.parse()?;
        // This one's root has been checked, and the watcher's filter does not let it look at that again.
        Self::open_any(self.path().with_file_name(id.as_str()))
            .with_context(|| format!("cannot read the state of container {id}"))
    }

    /// The directory that the watcher may write to.
    pub fn network_directory(&self) -> PathBuf {
        self.path.join(DIRECTORY)
    }

    /// Makes the directory that the watcher may write to.
    ///
    /// # Errors
    /// mkdir(2)'s.
    pub fn make_network_directory(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(self.network_directory()) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    /// Saves the state of the network for the watcher. It replaces what the record says.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn write_network(&self, network: &Network) -> anyhow::Result<()> {
        let path = self.network_directory().join(FILE);
        let progress = Progress { interfaces: network.interfaces.clone(), told: network.told.clone() };
        let write = || -> io::Result<()> {
            let mut new = Replacement::begin(&path, 0o600)?;
            new.file.write_all(&serde_json::to_vec(&progress)?)?;
            new.put()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The record with what the watcher has saved. What the watcher cannot have written is ignored.
    pub fn follow_network(&self, record: Record) -> Record {
        let Some(network) = record.network else { return record };
        let network = match self.read_progress() {
            Ok(Some(Progress { interfaces, told })) => Network { interfaces, told, ..network },
            Ok(None) => network,
            Err(cause) => {
                tracing::warn!("{}: {cause}", self.network_directory().join(FILE).display());
                network
            }
        };
        Record { network: Some(network), ..record }
    }

    /// Reads what the watcher has saved; `None` if nothing has changed since the container was started.
    fn read_progress(&self) -> io::Result<Option<Progress>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let path = self.network_directory().join(FILE);
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut text = Vec::new();
        file.take(LIMIT).read_to_end(&mut text)?;
        let progress: Progress = serde_json::from_slice(&text)?;
        // Interfaces that exist, and interfaces that have just gone.
        let is_possible = progress.interfaces.len() <= 2 * MAX_INTERFACES;
        if is_possible { Ok(Some(progress)) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Removes the watcher's directory.
    pub(super) fn remove_network(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.network_directory()) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

#[cfg(test)]
#[path = "network_file_test.rs"]
mod tests;
