//! What the guest knows by number: the files and directories that it has looked up in one share.
//!
//! A node is a file as seen through one mount: the same file through a second mount, which may be read-only, is another
//! node. Its O_PATH descriptor keeps inode and mount alive, so (mount, device, inode) names nothing else as long as the
//! node exists. Numbers are given out in order and never twice.

use std::{
    collections::HashMap,
    ffi::CStr,
    hash::{BuildHasherDefault, Hasher},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    budget::Permit,
    inodes::{Device, Devices, Shift},
    listings::Listed,
    pages::Pages,
    proc::Proc,
    range_locks::RangeLocks,
    sync::{read, write},
    sys::{Errno, Result},
};

/// Bits of a node's number that are its own; those above are its share's.
pub const NUMBER_BITS: u32 = 40;

/// What tells nodes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    mount: u64,
    device: Device,
    inode: u64,
}

impl Key {
    /// Of the file with these attributes.
    pub fn of(stat: &libc::statx) -> Self {
        Self { mount: stat.stx_mnt_id, device: (stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino }
    }

    /// Whether another file system, or another mount of it, begins between the two.
    pub fn is_beyond(&self, other: &Self) -> bool {
        (self.mount, self.device) != (other.mount, other.device)
    }
}

/// A file or directory that the guest knows.
#[derive(Debug)]
pub struct Node {
    number: u64,
    fd: OwnedFd,
    key: Key,
    kind: u32,
    /// It is the root of a tree, which the guest does not forget.
    is_tree: bool,
    /// It is a directory in which another file system begins.
    is_border: bool,
    coming: Coming,
    proc: Proc,
    inodes: Shift,
    lookups: AtomicU64,
    /// Locks of ranges that the guest holds in it.
    pub locks: RangeLocks,
    /// What decides on the pages that the guest has of it.
    pub pages: Pages,
    /// What decides on the listing that the guest has of it.
    pub listed: Listed,
    _permit: Permit,
}

impl Node {
    /// Its number, the share's included.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its type, as in a mode.
    pub fn kind(&self) -> u32 {
        self.kind
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == libc::S_IFDIR
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        self.kind == libc::S_IFREG
    }

    /// Whether it is the root of a tree.
    pub fn is_tree(&self) -> bool {
        self.is_tree
    }

    /// Whether it is a directory in which another file system begins.
    pub fn is_border(&self) -> bool {
        self.is_border
    }

    /// Whether the host may unmount it, which it cannot while the guest remembers it.
    pub fn may_go(&self) -> bool {
        self.coming == Coming::Goes
    }

    /// Its inode number for the guest.
    pub fn inode(&self) -> u64 {
        self.inode_beside(self.key.inode)
    }

    /// The guest's inode number for one of the same file system.
    pub fn inode_beside(&self, inode: u64) -> u64 {
        self.inodes.apply(inode)
    }

    /// Where in a proc file system it is.
    pub fn proc(&self) -> Proc {
        self.proc
    }
}

impl AsFd for Node {
    /// O_PATH.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether what is mounted at a node's place stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    /// Nothing is mounted or unmounted below its tree any more.
    Never,
    /// File systems come and go below it.
    Below,
    /// It is of such a file system.
    Goes,
}

/// Where a node comes from.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// It is the root of a tree.
    Tree(Coming),
    /// It has been found or made in this directory, by this name if it has one.
    Directory(&'a Node, &'a CStr),
}

impl Origin<'_> {
    /// Whether another file system begins with what has this key. Trees are no such border: Linux 6.12 has no ACLs in a
    /// file system that begins at one.
    fn is_border(&self, key: &Key) -> bool {
        match self {
            Self::Tree(_) => false,
            Self::Directory(parent, _) => key.is_beyond(&parent.key),
        }
    }

    fn coming(&self, key: &Key) -> Coming {
        match self {
            Self::Tree(coming) => *coming,
            Self::Directory(parent, _) if parent.coming == Coming::Below && self.is_border(key) => {
                Coming::Goes
            }
            Self::Directory(parent, _) => parent.coming,
        }
    }

    fn proc(&self, fd: BorrowedFd<'_>, stat: &libc::statx) -> Result<Proc> {
        match self {
            Self::Directory(parent, name) if !self.is_border(&Key::of(stat)) => {
                parent.proc().of_entry(parent.as_fd(), name)
            }
            _ => Proc::of_border(fd, stat),
        }
    }
}

/// A share's nodes.
#[derive(Debug)]
pub struct Nodes {
    /// The share's number in its place.
    base: u64,
    next: AtomicU64,
    devices: Arc<Devices>,
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    by_number: HashMap<u64, Arc<Node>, BuildHasherDefault<NumberHasher>>,
    by_key: HashMap<Key, Arc<Node>>,
    is_closed: bool,
}

impl Nodes {
    /// None yet; numbers begin after `first` in the share of `base`.
    pub fn new(base: u64, first: u64, devices: Arc<Devices>) -> Self {
        Self { base, next: AtomicU64::new(first + 1), devices, tables: RwLock::default() }
    }

    /// The node of this number.
    pub fn get(&self, number: u64) -> Result<Arc<Node>> {
        read(&self.tables).by_number.get(&number).cloned().ok_or(Errno::new(libc::ESTALE))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        read(&self.tables).by_number.len()
    }

    /// The node of this key, if there is one, looked up once more.
    pub fn look_up(&self, key: &Key) -> Option<Arc<Node>> {
        let tables = read(&self.tables);
        let node = tables.by_key.get(key)?;
        // Only `forget` makes it less, and it holds the table alone.
        node.lookups.fetch_add(1, Relaxed);
        Some(Arc::clone(node))
    }

    /// The node of this file, looked up once more: the one that there is, or a new one.
    pub fn add(
        &self,
        fd: OwnedFd,
        stat: &libc::statx,
        origin: Origin<'_>,
        permit: Permit,
    ) -> Result<Arc<Node>> {
        let key = Key::of(stat);
        let kind = u32::from(stat.stx_mode) & libc::S_IFMT;
        let proc = origin.proc(fd.as_fd(), stat)?;
        let mut tables = write(&self.tables);
        if tables.is_closed {
            return Err(Errno::new(libc::ESTALE));
        }
        let is_tree = matches!(origin, Origin::Tree(_));
        let known = tables.by_key.get(&key);
        if let Some(node) = known
            && !is_tree
        {
            node.lookups.fetch_add(1, Relaxed);
            return Ok(Arc::clone(node));
        }
        let number = self.next.fetch_add(1, Relaxed);
        if number >> NUMBER_BITS != 0 {
            return Err(Errno::new(libc::ENFILE));
        }
        let coming = origin.coming(&key);
        let node = Arc::new(Node {
            number: self.base | number,
            fd,
            key,
            kind,
            is_tree,
            // The guest would mount what is behind it, and keep it so.
            is_border: kind == libc::S_IFDIR && coming == Coming::Never && origin.is_border(&key),
            coming,
            proc,
            inodes: self.devices.shift_of(key.device),
            lookups: AtomicU64::new(1),
            locks: RangeLocks::default(),
            pages: Pages::default(),
            listed: Listed::default(),
            _permit: permit,
        });
        tables.by_number.insert(node.number, Arc::clone(&node));
        tables.by_key.entry(key).or_insert_with(|| Arc::clone(&node));
        Ok(node)
    }

    /// Takes back so many lookups. A node that has none left is forgotten; the guest may well say too many.
    pub fn forget(&self, number: u64, lookups: u64) {
        let mut tables = write(&self.tables);
        let Some(node) = tables.by_number.get(&number) else { return };
        let left = node.lookups.load(Relaxed).saturating_sub(lookups);
        node.lookups.store(left, Relaxed);
        if left > 0 || node.is_tree {
            return;
        }
        let forgotten = tables.remove(number);
        // Closing may take its time.
        drop(tables);
        drop(forgotten);
    }

    /// Forgets all but trees, as if the guest had never looked anything up.
    pub fn reset(&self) {
        let mut tables = write(&self.tables);
        let is_kept = |node: &Arc<Node>| node.is_tree;
        let gone: Vec<_> = tables.by_number.extract_if(|_, node| !is_kept(node)).collect();
        tables.by_key.retain(|_, node| is_kept(node));
        drop(tables);
        drop(gone);
    }

    /// Forgets all, for good.
    pub fn close(&self) {
        let mut tables = write(&self.tables);
        let gone = std::mem::take(&mut *tables);
        tables.is_closed = true;
        drop(tables);
        drop(gone);
    }
}

impl Tables {
    fn remove(&mut self, number: u64) -> Option<Arc<Node>> {
        let node = self.by_number.remove(&number)?;
        // Its key may be that of a tree's root.
        if self.by_key.get(&node.key).is_some_and(|other| other.number == number) {
            self.by_key.remove(&node.key);
        }
        Some(node)
    }
}

/// For numbers that the server gives out itself, one after the other.
#[derive(Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The table takes its index from the low bits and a tag from the high ones.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
