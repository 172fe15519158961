//! What the guest has open in one share: regular files and directories, by number.
//!
//! A handle owns its descriptor, and whoever works with it owns a share in the handle: the number of a descriptor is never
//! used after it was closed.

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
    sync::{read, write},
    sys::{Errno, Result},
};

/// An open file or directory.
#[derive(Debug)]
pub struct Handle {
    fd: OwnedFd,
    node: Arc<Node>,
    /// The offset of the next entry that the descriptor yields; only directories have one.
    pub position: Mutex<i64>,
    _permit: Permit,
}

impl Handle {
    /// Of this descriptor, which is the node's file opened.
    pub fn new(fd: OwnedFd, node: Arc<Node>, permit: Permit) -> Self {
        Self { fd, node, position: Mutex::new(0), _permit: permit }
    }

    /// What is open.
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
    /// None yet, and at most so many.
    pub fn new(limit: usize) -> Self {
        // 0 is what virtual directories have.
        Self { limit, next: AtomicU64::new(1), table: RwLock::default() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        read(&self.table).handles.len()
    }

    /// Whether one more may be opened.
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

    /// Takes the number back. The descriptor is closed when the last request that uses it is done.
    pub fn remove(&self, number: u64) -> Result<Arc<Handle>> {
        write(&self.table).handles.remove(&number).ok_or(Errno::new(libc::EBADF))
    }

    /// Takes all numbers back.
    pub fn reset(&self) {
        let gone = std::mem::take(&mut write(&self.table).handles);
        drop(gone);
    }

    /// Takes all numbers back and gives out no more.
    pub fn close(&self) {
        let mut table = write(&self.table);
        let gone = std::mem::take(&mut *table);
        table.is_closed = true;
        drop(table);
        drop(gone);
    }
}
