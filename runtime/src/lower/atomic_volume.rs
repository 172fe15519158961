//! Directories of the host that change by a swap, as ConfigMaps and Secrets do: kubelet makes a new version beside
//! the old one and then lets a link lead to it. Containers get a copy of them that follows the host, because inotify in
//! the guest does not see what the host changes on a shared file system.

use std::fs;

use crate::vm::Tree;

/// The name of the link that is swapped.
const DATA: &str = "..data";

/// 1 if the host's kernel notifies processes of changes in directories (fcntl(2), F_NOTIFY). Unlike inotify, that needs
/// nothing scarce: root has 128 inotify instances for all relays and everything else that it runs.
const NOTIFY: &str = "/proc/sys/fs/dir-notify-enable";

/// Whether the container gets a copy. A directory that it may write to is never copied.
pub fn is_atomic(tree: &Tree) -> bool {
    let has_version = || {
        let version = fs::read_link(tree.source.join(DATA));
        version.is_ok_and(|version| version.to_str().is_some_and(|name| name.starts_with("..")))
    };
    let is_told = || fs::read_to_string(NOTIFY).is_ok_and(|text| text.trim_end() == "1");
    tree.readonly && !tree.no_follow && tree.overlay.is_none() && has_version() && is_told()
}

#[cfg(test)]
#[path = "atomic_volume_test.rs"]
mod tests;
