//! What the guest may not see where a tree shows a proc file system: the server itself.
//!
//! A process may always open its own `/proc/PID/mem`, and the server opens files for the guest. So of the directories of its own
//! process and threads, the guest gets little more than what `/proc/net` and `/proc/mounts` lead to. Links such as
//! `/proc/PID/root` and `/proc/PID/fd/N` are never followed, whose ever they are.

use std::{ffi::CStr, os::fd::BorrowedFd};

use super::sys::{self, Errno, Result};

/// The inode number of a proc file system's root.
const ROOT: u64 = 1;

/// What can be found in the server's own directories: what is the same for all processes, or tells nothing.
const HARMLESS: [&[u8]; 8] =
    [b"cgroup", b"mountinfo", b"mounts", b"mountstats", b"net", b"stat", b"statm", b"status"];

/// Digits of the largest process number.
const DIGITS: usize = 10;

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proc {
    /// In no proc file system.
    Outside,
    /// Its root.
    Root,
    /// In one.
    Inside,
    /// The directory of the server's process, or of one of its threads.
    Own,
}

impl Proc {
    /// Of what another file system begins with.
    pub fn of_border(file: BorrowedFd<'_>, stat: &libc::statx) -> Result<Self> {
        Ok(match sys::stat_fs(file)?.f_type {
            libc::PROC_SUPER_MAGIC if stat.stx_ino == ROOT => Self::Root,
            libc::PROC_SUPER_MAGIC => Self::Inside,
            _ => Self::Outside,
        })
    }

    /// Of what is in a directory of the same file system, which is this itself.
    pub fn of_entry(self, directory: BorrowedFd<'_>, name: &CStr) -> Result<Self> {
        match self {
            Self::Outside => Ok(Self::Outside),
            Self::Inside => Ok(Self::Inside),
            Self::Root if is_own(directory, name.to_bytes()) => Ok(Self::Own),
            Self::Root => Ok(Self::Inside),
            Self::Own if HARMLESS.contains(&name.to_bytes()) => Ok(Self::Inside),
            Self::Own => Err(Errno::new(libc::ENOENT)),
        }
    }
}

/// Whether a name in a proc's root is the number of one of the server's threads. A directory of a thread that has none of the
/// server's may get its number later, but is then not the server's.
fn is_own(root: BorrowedFd<'_>, name: &[u8]) -> bool {
    const TASKS: &[u8] = b"self/task/";
    if name.len() > DIGITS || !name.iter().all(u8::is_ascii_digit) {
        return false;
    }
    // The last byte is the string's end.
    let mut path = [0; TASKS.len() + DIGITS + 1];
    path[..TASKS.len()].copy_from_slice(TASKS);
    path[TASKS.len()..][..name.len()].copy_from_slice(name);
    // "self" is proc's own link. Where this proc does not show the server, it leads nowhere.
    CStr::from_bytes_until_nul(&path).is_ok_and(|path| sys::stat_at(root, path).is_ok())
}

#[cfg(test)]
#[path = "proc_test.rs"]
mod tests;
