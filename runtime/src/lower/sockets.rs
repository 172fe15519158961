//! Bind mounts of the host's sockets. If the configuration lists a socket, the container gets a socket of the agent in
//! its place, and the relay passes its connections to the host's socket.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};
use stockade_protocol::container::{IdMappings, MountSource};

use super::plan::{PlannedMount, PlannedSource};
use super::share_path;
use crate::config::{self, Pattern};
use crate::vm::Tree;

/// Largest number of sockets of one container: each costs its relay a thread.
const MAX: usize = 64;

/// The owner that Linux shows for files whose owner is not mapped.
const NOBODY: u32 = 65534;

/// Connects the listed sockets of a container whose trees are in this directory of the share, and warns about the
/// others. Returns the host's sockets, by their numbers.
pub fn connect(
    trees: &mut Vec<Tree>,
    mounts: &mut [PlannedMount],
    directory: &str,
    listed: &[Pattern],
    warnings: &mut Vec<String>,
) -> Vec<OwnedFd> {
    let mut sockets: Vec<OwnedFd> = Vec::new();
    trees.retain(|tree| {
        if !tree.is_socket {
            return true;
        }
        let mut warn = |problem: String| warnings.push(format!("{}: {problem}", tree.property));
        match find(&tree.source, listed) {
            Ok((file, found)) if sockets.len() < MAX => {
                if !may_connect(&found) {
                    warn(forbidden(&tree.source, &found));
                }
                let share = PlannedSource::Guest(MountSource::Share(share_path(directory, &tree.name)));
                let number = sockets.len() as u16;
                for mount in mounts.iter_mut().filter(|mount| mount.source == share) {
                    mount.source = source(number, &found, tree).into();
                }
                sockets.push(file.into());
                false
            }
            Ok(_) => {
                warn(format!(
                    "nobody listens on {} in the VM: a container can have at most {MAX} sockets of the host",
                    tree.source.display()
                ));
                true
            }
            Err(problem) => {
                warn(problem);
                true
            }
        }
    });
    sockets
}

/// A socket that is listed, or why it is not used.
fn find(path: &Path, listed: &[Pattern]) -> Result<(File, Metadata), String> {
    let failed = |cause: io::Error| format!("cannot open the socket {}: {cause}", path.display());
    let (file, path) = open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    // The file was a socket a moment ago, but may be something else now, for which no pattern is meant.
    if found.file_type().is_socket() && listed.iter().any(|pattern| pattern.matches(&path)) {
        return Ok((file, found));
    }
    Err(format!(
        "nobody listens on the host's socket {} in the VM; to connect the container to it, list it in host_sockets of \
         {}",
        path.display(),
        config::path().display()
    ))
}

fn source(number: u16, found: &Metadata, tree: &Tree) -> MountSource {
    let mappings = tree.id_map.as_ref().map(|map| &map.mappings);
    let mapped = |id: u32, map: fn(&IdMappings, u32) -> Option<u32>| {
        mappings.map_or(id, |mappings| map(mappings, id).unwrap_or(NOBODY))
    };
    MountSource::Socket {
        number,
        mode: found.mode() & 0o7777,
        uid: mapped(found.uid(), IdMappings::user),
        gid: mapped(found.gid(), IdMappings::group),
    }
}

/// Whether the relay, which has no capabilities, may connect.
fn may_connect(found: &Metadata) -> bool {
    let permission = if found.uid() == geteuid().as_raw() {
        0o200
    } else if found.gid() == getegid().as_raw() {
        0o020
    } else {
        0o002
    };
    found.mode() & permission != 0
}

fn forbidden(path: &Path, found: &Metadata) -> String {
    format!(
        "connecting to {} will fail: it belongs to user {} and has mode {:o}, but the host's end of the connection is \
         user {}, without capabilities",
        path.display(),
        found.uid(),
        found.mode() & 0o7777,
        geteuid()
    )
}

/// Opens a socket as a file that can only be connected to; also its path without links.
fn open(path: &Path) -> io::Result<(File, PathBuf)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Ok((file, path))
}

#[cfg(test)]
#[path = "sockets_test.rs"]
mod tests;
