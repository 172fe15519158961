//! When the guest may keep a file's pages over an open.
//!
//! The guest's kernel drops a file's pages at each open, unless the reply tells it to keep them. It is told so if the file
//! has not changed since the pages came: size and times are what they were at an earlier open, at which the guest dropped
//! what it had.
//!
//! - The state is taken at an open, and remembered at the first READ by its handle: that shows that the guest has carried
//!   out the open. An open whose reply never got that far changes nothing.
//! - File systems count time in steps. A file that changes twice in one step looks as after the first change, so a state
//!   counts only if the last change lies some time back ([`MIN_AGE`]): any later one shows then.
//! - Only files of file systems that set the times themselves at every change are kept ([`FileSystem::Local`]).
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

use super::{
    sync::lock,
    sys::{self, Result},
};

/// Least number of seconds since a file's last change, for its state to count: more than the coarsest step of time.
const MIN_AGE: i64 = 3;

/// File systems whose files change through this host's kernel alone, so that the times of a file show each change, and a
/// close(2) has nothing to do that could fail.
const LOCAL: [i64; 8] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xf2f5_2010, // F2FS
    0x0102_1994, // tmpfs
    0x794c_7630, // overlay, whose upper directory has to be on one like these
    0xe0f5_e1e2, // EROFS
    0x7371_7368, // SquashFS
];

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
    /// One of [`LOCAL`].
    Local,
    /// One of [`PSEUDO`].
    Pseudo,
    /// Any other: its files may change elsewhere, or without a change of their times.
    Other,
}

impl FileSystem {
    fn of(file: BorrowedFd<'_>) -> Result<Self> {
        let kind = sys::stat_fs(file)?.f_type;
        Ok(if LOCAL.contains(&kind) {
            Self::Local
        } else if PSEUDO.contains(&kind) {
            Self::Pseudo
        } else {
            Self::Other
        })
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
    /// The state of a file, if it counts at this time.
    fn of(stat: &libc::statx, now: i64) -> Option<Self> {
        let (mtime, ctime) = (stat.stx_mtime, stat.stx_ctime);
        // Times in the future were set by another clock.
        if now.saturating_sub(ctime.tv_sec) < MIN_AGE {
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

    /// Whether the guest may keep the pages, at an open after which the file has these attributes.
    pub fn open(&self, stat: &libc::statx) -> (bool, Opening) {
        // Before 1970, no file is old enough.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
        let state = State::of(stat, now);
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
