//! Watching directories of the host, whose changes are reported to the guest.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// `DN_CREATE | DN_DELETE | DN_RENAME | DN_ATTRIB | DN_MULTISHOT` of linux/fcntl.h: entries are made, removed or renamed, or
/// get other owners and modes; again and again.
const CHANGES: libc::c_int = 0x4 | 0x8 | 0x10 | 0x20 | i32::MIN;

/// Makes the kernel send SIGIO to this process whenever an entry of the directory changes, for as long as the returned
/// descriptor is open. The directory is opened through a clone of its tree, so that the caller's own mount of it can
/// go.
///
/// # Errors
/// open(2)'s, and EINVAL where the kernel has no such notification.
pub(super) fn watch(tree: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = openat(tree, ".", flags, Mode::empty())?;
    // SAFETY: F_NOTIFY takes an integer.
    if unsafe { libc::fcntl(directory.as_raw_fd(), libc::F_NOTIFY, CHANGES) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(directory)
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
