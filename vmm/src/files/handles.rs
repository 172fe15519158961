//! What the guest has open in one share: regular files and directories, by number.
//!
//! A handle owns its descriptor, and every request that works with it holds a reference to the handle: the number of a
//! descriptor is never used after it was closed.

use std::{
    collections::HashMap,
    hash::BuildHasherDefault,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    budget::Permit,
    nodes::{Node, NumberHasher},
    pages::Opening,
    sync::{read, write},
    sys::{Errno, Result},
};

/// An open file or directory.
#[derive(Debug)]
pub struct Handle {
    fd: OwnedFd,
    node: Arc<Node>,
    /// The offset of the next entry that the descriptor returns; only directories have one.
    pub position: Mutex<i64>,
    /// What its open has found of the file.
    pub opening: Opening,
    _permit: Permit,
}

impl Handle {
    /// A handle of this descriptor, which was opened for the node's file.
    pub fn new(fd: OwnedFd, node: Arc<Node>, permit: Permit, opening: Opening) -> Self {
        Self { fd, node, position: Mutex::new(0), opening, _permit: permit }
    }

    /// The node that is open.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A share's handles.
#[derive(Debug)]
pub struct Handles {
    limit: usize,
    next: AtomicU64,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    handles: HashMap<u64, Arc<Handle>, BuildHasherDefault<NumberHasher>>,
    is_closed: bool,
}

impl Handles {
    /// Without handles yet; at most `limit` can be added.
    pub fn new(limit: usize) -> Self {
        // Virtual directories have the number 0.
        Self { limit, next: AtomicU64::new(1), table: RwLock::default() }
    }

    /// Number of handles.
    pub fn count(&self) -> usize {
        read(&self.table).handles.len()
    }

    /// Checks that one more handle may be opened.
    pub fn check_room(&self) -> Result<()> {
        if self.count() < self.limit { Ok(()) } else { Err(Errno::new(libc::ENFILE)) }
    }

    /// Gives the handle a number.
    pub fn add(&self, handle: Handle) -> Result<u64> {
        let mut table = write(&self.table);
        if table.is_closed {
            return Err(Errno::new(libc::ESTALE));
        }
        let number = self.next.fetch_add(1, Relaxed);
        table.handles.insert(number, Arc::new(handle));
        Ok(number)
    }

    /// The regular file of this number.
    pub fn file(&self, number: u64) -> Result<Arc<Handle>> {
        self.get(number, Node::is_regular)
    }

    /// The directory of this number.
    pub fn directory(&self, number: u64) -> Result<Arc<Handle>> {
        self.get(number, Node::is_directory)
    }

    fn get(&self, number: u64, is_right: impl Fn(&Node) -> bool) -> Result<Arc<Handle>> {
        let table = read(&self.table);
        match table.handles.get(&number) {
            Some(handle) if is_right(&handle.node) => Ok(Arc::clone(handle)),
            _ => Err(Errno::new(libc::EBADF)),
        }
    }

    /// Frees the number. The descriptor is closed when the last request that uses it is done.
    pub fn remove(&self, number: u64) -> Result<Arc<Handle>> {
        write(&self.table).handles.remove(&number).ok_or(Errno::new(libc::EBADF))
    }

    /// Frees all numbers.
    pub fn reset(&self) {
        let gone = std::mem::take(&mut write(&self.table).handles);
        drop(gone);
    }

    /// Frees all numbers, and gives out no more.
    pub fn close(&self) {
        let mut table = write(&self.table);
        let gone = std::mem::take(&mut *table);
        table.is_closed = true;
        drop(table);
        drop(gone);
    }
}
