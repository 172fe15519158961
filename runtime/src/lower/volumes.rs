//! Volumes of a pod: a directory that one container of a pod writes to is one share for all of them.
//!
//! With separate shares, the guest's kernel would see separate file systems: two containers that map one file would map
//! two different files, locks of one would not hold for the other, and inotify would not tell one what the other does.
//! A directory that is only read stays the container's own share, so that the host's kernel refuses writes; but a
//! container that reads what another one writes uses the writer's share.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::state::sandbox::PodVolumes;
use crate::vm::Tree;

/// The tree's name in the pod's directory of the share, if the tree belongs there.
pub fn name(tree: &Tree, pod: Option<&PodVolumes>) -> Option<String> {
    let pod = pod?;
    // A tree that follows the host lives only as long as its container.
    if tree.no_follow || tree.overlay.is_some() || tree.id_map.is_some() || tree.follows {
        return None;
    }
    let name = identity(&tree.source, tree.recursive)?;
    (!tree.readonly || pod.writable.contains(&name)).then_some(name)
}

/// A name that is the same for the same directory of the same mount; `None` for a file.
fn identity(path: &Path, recursive: bool) -> Option<String> {
    const WANTED: libc::c_uint = libc::STATX_TYPE | libc::STATX_INO | libc::STATX_MNT_ID;
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // Not by the C library's function: a static program with link-time optimisation may be without it, because the
    // standard library refers to it weakly.
    // SAFETY: the path is NUL-terminated, and the kernel fills in one structure, for which all zeros is a value.
    let found = unsafe {
        if libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), 0, WANTED, found.as_mut_ptr()) != 0 {
            return None;
        }
        found.assume_init()
    };
    let is_directory = u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFDIR;
    let mounts_below = if recursive { "r" } else { "" };
    is_directory.then(|| {
        format!(
            "v{:x}-{:x}-{:x}-{:x}{mounts_below}",
            found.stx_dev_major, found.stx_dev_minor, found.stx_ino, found.stx_mnt_id
        )
    })
}

#[cfg(test)]
#[path = "volumes_test.rs"]
mod tests;
