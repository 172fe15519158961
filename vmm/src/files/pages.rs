//! When the guest may keep a file's pages over an open.
//!
//! The guest's kernel drops a file's pages at each open, unless the reply tells it to keep them. It is told so if the file
//! has not changed since the pages came: size and times are what they were at an earlier open, at which the guest dropped
//! what it had.
//!
//! - The state is taken at an open, and remembered at the first READ by its handle: that shows that the guest has carried
//!   out the open. An open whose reply never got that far changes nothing.
//! - A state counts only if the last change lies some time back ([`Limits::settled_after`]), for then any later one shows.
//!   File systems count time in steps, and a second change in one step does not show. Nor does a second write through a
//!   mapping (mmap), until the host has written the page to its disk, which it does after half a minute.
//! - So only files on disks count ([`FileSystem::Disk`]), of this host's kernel alone: what is in memory is never written
//!   back, and what another host or a program provides may change without a change of its times.
//!
//! What is remembered is the node's, and is forgotten with it. Other shares, and other guests, have nodes of their own.

use std::{
    os::fd::BorrowedFd,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

#[cfg(doc)]
use super::Limits;
use super::{
    sync::lock,
    sys::{self, Result},
};

/// File systems on this host's disks.
const DISKS: [i64; 7] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xf2f5_2010, // F2FS
    0x794c_7630, // overlay, whose upper directory is on one of these as a rule
    0xe0f5_e1e2, // EROFS
    0x7371_7368, // SquashFS
];

const TMPFS: i64 = 0x0102_1994;

/// File systems whose files have contents that their size does not tell.
const PSEUDO: [i64; 12] = [
    libc::PROC_SUPER_MAGIC,
    libc::SYSFS_MAGIC,
    libc::CGROUP_SUPER_MAGIC,
    libc::CGROUP2_SUPER_MAGIC,
    libc::DEBUGFS_MAGIC,
    libc::TRACEFS_MAGIC,
    libc::SECURITYFS_MAGIC,
    0xf97c_ff8c, // selinuxfs
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
];

/// What is known of the file system that a file is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// One of [`DISKS`].
    Disk,
    /// tmpfs.
    Memory,
    /// One of [`PSEUDO`].
    Pseudo,
    /// Any other: its files may change elsewhere, or without a change of their times.
    Other,
}

impl FileSystem {
    fn of(file: BorrowedFd<'_>) -> Result<Self> {
        let kind = sys::stat_fs(file)?.f_type;
        Ok(match kind {
            TMPFS => Self::Memory,
            disk if DISKS.contains(&disk) => Self::Disk,
            pseudo if PSEUDO.contains(&pseudo) => Self::Pseudo,
            _ => Self::Other,
        })
    }

    /// Whether a close(2) there has nothing to do that could fail.
    pub fn closes_silently(self) -> bool {
        matches!(self, Self::Disk | Self::Memory)
    }
}

/// What shows that a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
}

impl State {
    /// The state of a file, if its last change was before this time.
    fn of(stat: &libc::statx, before: i64) -> Option<Self> {
        let (mtime, ctime) = (stat.stx_mtime, stat.stx_ctime);
        if ctime.tv_sec >= before {
            return None;
        }
        Some(Self {
            size: stat.stx_size,
            mtime: (mtime.tv_sec, mtime.tv_nsec),
            ctime: (ctime.tv_sec, ctime.tv_nsec),
        })
    }
}

/// What is remembered of a node's file.
#[derive(Debug, Default)]
pub struct Pages {
    file_system: OnceLock<FileSystem>,
    /// Its state when the guest last dropped the pages and began to read.
    state: Mutex<Option<State>>,
}

impl Pages {
    /// The file system of the node's file, which is open here.
    pub fn file_system(&self, file: BorrowedFd<'_>) -> Result<FileSystem> {
        match self.file_system.get() {
            Some(known) => Ok(*known),
            None => FileSystem::of(file).map(|found| *self.file_system.get_or_init(|| found)),
        }
    }

    /// Whether the guest may keep the pages, at an open after which the file has these attributes; changes count that lie
    /// as many seconds back as `settled_after`.
    pub fn open(&self, stat: &libc::statx, settled_after: i64) -> (bool, Opening) {
        // Before 1970, no file is old enough.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
        let state = State::of(stat, now.saturating_sub(settled_after));
        let may_keep = state.is_some() && *lock(&self.state) == state;
        (may_keep, Opening { state, is_recorded: AtomicBool::new(may_keep) })
    }
}

/// What a handle's open has found.
#[derive(Debug)]
pub struct Opening {
    state: Option<State>,
    is_recorded: AtomicBool,
}

impl Opening {
    /// Of a handle whose reads leave no pages.
    pub fn without_pages() -> Self {
        Self { state: None, is_recorded: AtomicBool::new(true) }
    }

    /// The guest reads by the handle, so it has dropped the pages that it had before the open.
    pub fn reads(&self, pages: &Pages) {
        if !self.is_recorded.load(Relaxed) && !self.is_recorded.swap(true, Relaxed) {
            *lock(&pages.state) = self.state;
        }
    }
}

#[cfg(test)]
#[path = "pages_test.rs"]
mod tests;
