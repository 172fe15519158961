//! When the guest may keep a directory's listing over an open.
//!
//! The guest's kernel keeps a listing in its page cache, and drops it when its own requests change the directory, or the time of the
//! last change is another one. Beyond that it is told at each open whether to keep what it has, and what it has may be as old as
//! names may: the host's changes are seen within that time, whatever the file system's times are worth. A listing that is dropped is
//! read anew with the attributes of all entries, which the guest would otherwise ask for one by one.
//!
//! How old a listing is, the server knows by the first READDIR from the start after an open that has dropped the former one. What
//! the guest reads later can only be younger.

use std::{
    sync::Mutex,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::sync::lock;

/// How many seconds a directory's last change must lie back, for any later one to have another time: longer than the step in which
/// a file system counts time, because a process that has a directory open may read it again long after.
const SETTLED_AFTER: i64 = 1;

/// What is remembered of a directory's listing.
#[derive(Debug, Default)]
pub struct Listed {
    /// When the guest began to read the listing that it may have.
    begun: Mutex<Option<Instant>>,
}

impl Listed {
    /// The guest reads the directory from its start.
    pub fn begins(&self) {
        lock(&self.begun).get_or_insert_with(Instant::now);
    }

    /// Whether the guest may keep the listing that it has, at an open at this time, if it may be almost as old as `most`; if not, it
    /// drops it.
    pub fn open(&self, now: Instant, most: Duration) -> bool {
        let mut begun = lock(&self.begun);
        let is_young = begun.is_some_and(|begun| now.saturating_duration_since(begun) < most);
        if !is_young {
            *begun = None;
        }
        is_young
    }
}

/// Whether any later change of a directory with these attributes will show in them.
pub fn is_settled(stat: &libc::statx) -> bool {
    // Before 1970, nothing is old enough.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
    stat.stx_mtime.tv_sec.max(stat.stx_ctime.tv_sec) < now.saturating_sub(SETTLED_AFTER)
}

#[cfg(test)]
#[path = "listings_test.rs"]
mod tests;
