//! A container's namespace in a form by which it is recognised later.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A namespace of a container on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownNamespace {
    /// Its name in /proc/PID/ns.
    pub(super) kind: String,
    /// Its nsfs inode.
    pub(super) inode: u64,
    /// The path by which config.json named it; `None` for a namespace of the relay.
    #[serde(default)]
    pub(super) path: Option<PathBuf>,
}

impl KnownNamespace {
    /// Whether the namespace still exists, given that its container's relay lives.
    pub(super) fn lives(&self, relay: i32) -> bool {
        let path = self.path.clone().unwrap_or_else(|| of_process(relay, &self.kind));
        inode(&path).is_ok_and(|inode| inode == self.inode)
    }
}

/// The path at which the kernel shows a namespace of a process.
pub(super) fn of_process(pid: i32, kind: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{kind}"))
}

/// The nsfs inode of the namespace at a path.
///
/// # Errors
/// stat(2)'s.
pub(super) fn inode(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.ino())
}
