//! Mounts that the runtime makes for processes of its own.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use stockade_sys::mount_api::{self, attr};

/// Attributes of a procfs through which nothing can be changed.
pub const HARMLESS: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;

/// A detached read-only procfs that shows processes only; before Linux 5.8, it shows everything else too.
///
/// # Errors
/// Those of [`mount_api::new_file_system`].
pub fn own_processes() -> Result<OwnedFd, Errno> {
    match mount_api::new_file_system("proc", "proc", "subset=pid", HARMLESS) {
        Err(Errno::EINVAL) => {
            tracing::debug!(
                "the host's kernel cannot limit a procfs to processes; the procfs is read-only all the same"
            );
            mount_api::new_file_system("proc", "proc", "", HARMLESS)
        }
        mounted => mounted,
    }
}
