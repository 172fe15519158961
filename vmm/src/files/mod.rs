//! The file server: answers the guest's FUSE requests from trees of the host.
//!
//! ```text
//! /                      virtual, read-only: the shares
//! └── SHARE              virtual, read-only: one container's trees, or its pod's
//!     └── TREE           a directory or single file of the host, handed over as an O_PATH descriptor
//! ```
//!
//! The guest is hostile, and so may be the VMM that passes its requests on. These rules hold against both:
//!
//! - A request is copied to private memory before anything in it is looked at. Only the data of WRITE go from the buffer to
//!   the kernel, which takes them as they are.
//! - Files are reached by one component of a path beneath an O_PATH descriptor, and links are never followed: ".." is not
//!   looked up, and nothing outside the trees can be named. For I/O, a regular file or directory is opened once more through
//!   its descriptor in `/proc/self/fd`; device nodes, FIFOs and sockets never are, because the guest's kernel implements them.
//! - A descriptor belongs to a node or a handle and is closed with it, not before. The flags of an open are an allow-list.
//! - Every share has a budget; beyond it, only that share gets an error.
//!
//! This module has no thread, no process and no virtio: [`FileServer::handle`] is called with one request at a time by
//! each of several threads.

mod abi;
mod attributes;
mod budget;
mod call;
mod data;
mod directories;
#[cfg(any(test, feature = "fuzz"))]
#[cfg_attr(not(test), allow(dead_code, reason = "fuzz targets need a part of it"))]
mod fixture;
mod handles;
mod init;
mod inodes;
mod listings;
mod locks;
mod names;
mod nodes;
mod open;
mod pages;
mod proc;
mod range_locks;
mod reply;
mod request;
mod server;
mod share;
mod shares;
mod sync;
mod sys;
mod thread;
#[cfg(any(test, feature = "fuzz"))]
#[cfg_attr(not(test), allow(dead_code, reason = "fuzz targets need a part of it"))]
pub(crate) mod wild;
mod xattrs;

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use vm_memory::VolatileSlice;

pub use self::shares::{Error, Use};
pub use self::thread::ThreadState;
use self::{nodes::NUMBER_BITS, shares::Shares};

/// Largest number of data bytes in a READ or WRITE.
const MAX_DATA: usize = 1 << 20;

/// Largest number of bytes in a request or a reply: data and headers.
pub const MAX_MESSAGE: usize = MAX_DATA + (4 << 10);

/// Descriptors that the process keeps for itself.
const OWN: u32 = 16 << 10;

/// The share that a request is for, by the node that it names: the share's number, or 0 for the file system's root.
pub fn share_of(node_id: u64) -> u32 {
    // A share's number has 24 bits.
    (node_id >> NUMBER_BITS) as u32
}

/// Limits on what the guest can make the server hold, and on what it may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Descriptors of all shares together. The process may open some more: the trees of a new share, one for each
    /// thread, and its own.
    pub descriptors: u32,
    /// Descriptors of one share, for what its container knows and has open. It also never gets more than what is left
    /// for all others.
    pub descriptors_per_share: u32,
    /// Files and directories that one share's container may have open.
    pub handles_per_share: u32,
    /// Whether flock(2) and POSIX locks hold between guests, and on the host. The server never waits for a lock: a guest
    /// that waits must ask again until it gets it. Linux 6.12 does not: it would tell programs EAGAIN where they
    /// wait. So this takes a guest kernel that does; with any other, locks hold within the guest, where its kernel
    /// waits for them.
    pub host_locks: bool,
    /// How many seconds a file's last change must lie back for the guest to keep its pages over an open: longer than the
    /// host keeps a page in memory that was written to through a mapping. Linux looks each five seconds for those of more
    /// than thirty.
    pub settled_after: i64,
}

impl Limits {
    /// Those of a process that may have so many descriptors: a user without rights may have few, and a container that could take
    /// them all would leave none for the others, nor for a connection of the runtime.
    pub fn of(descriptors: u64) -> Self {
        let default = Self::default();
        // The default is of 2^20 descriptors.
        let all = u32::try_from(descriptors).unwrap_or(u32::MAX);
        Self {
            descriptors: default.descriptors.min(all - (all / 4).min(OWN)),
            descriptors_per_share: default.descriptors_per_share.min(all / 2),
            ..default
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            descriptors: (1 << 20) - OWN,
            descriptors_per_share: 1 << 19,
            handles_per_share: 1 << 16,
            host_locks: false,
            settled_after: 60,
        }
    }
}

/// A request that cannot be understood, and why: the guest's driver, or the device that passes requests on, is at
/// fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("FUSE request: {0}")]
pub struct Malformed(&'static str);

/// The server.
pub struct FileServer {
    /// `/proc/self/fd`.
    fds: OwnedFd,
    limits: Limits,
    shares: Shares,
    /// Whether SETXATTR has its extension, as INIT has negotiated.
    has_setxattr_ext: AtomicBool,
}

impl FileServer {
    /// A server without shares. `proc_fds` is an O_PATH descriptor of a directory that is this process's `/proc/self/fd`
    /// and whose ".." leads nowhere.
    pub fn new(proc_fds: OwnedFd, limits: Limits) -> Self {
        Self { fds: proc_fds, limits, shares: Shares::new(limits), has_setxattr_ext: AtomicBool::new(false) }
    }

    /// Adds an empty share.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Exists`], [`Error::TooMany`].
    pub fn add_share(&self, name: &str) -> Result<(), Error> {
        self.shares.add(name)
    }

    /// Shows trees, O_PATH descriptors, in a share. A name that is taken keeps its tree.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::NotFound`], [`Error::Tree`]. The trees before the wrong one have been added.
    pub fn add_trees(&self, share: &str, trees: Vec<(String, OwnedFd)>) -> Result<(), Error> {
        self.shares.add_trees(share, trees)
    }

    /// Removes a share and closes all descriptors below it; a request that is being handled keeps its own until it is done.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn remove_share(&self, name: &str) -> Result<(), Error> {
        self.shares.remove(name)
    }

    /// Forgets what the guest knows and closes what it has open, because its device was reset and its next kernel
    /// begins anew. Shares and trees stay.
    pub fn reset(&self) {
        self.shares.all().iter().for_each(|share| share.reset());
    }

    /// What each share holds now, by name.
    pub fn uses(&self) -> Vec<(String, Use)> {
        self.shares.uses()
    }

    /// Handles one request: the first `request` bytes of `buffer`, which others may change meanwhile. The reply, at most
    /// `room` bytes, is written from the buffer's start. Returns its length, or 0 if there is none.
    ///
    /// # Errors
    /// The request cannot be understood, or a reply has no room. All other requests are answered, if necessary with an
    /// error.
    pub fn handle(
        &self,
        thread: &mut ThreadState,
        buffer: VolatileSlice<'_>,
        request: usize,
        room: usize,
    ) -> Result<usize, Malformed> {
        server::handle(self, thread, buffer, request, room)
    }

    fn fds(&self) -> BorrowedFd<'_> {
        self.fds.as_fd()
    }

    /// The share of a node; `None` for the virtual root.
    fn share(&self, node: u64) -> Option<Arc<share::Share>> {
        self.shares.get(share_of(node))
    }

    fn has_setxattr_ext(&self) -> bool {
        self.has_setxattr_ext.load(Relaxed)
    }

    fn negotiate_setxattr_ext(&self, has: bool) {
        self.has_setxattr_ext.store(has, Relaxed);
    }
}

impl fmt::Debug for FileServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileServer").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "mounts_test.rs"]
mod mounts_tests;
