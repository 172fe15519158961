//! The shares of one guest, by name for the runtime and by number for the guest.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, RwLock},
};

use super::{
    Limits,
    budget::Pot,
    inodes::Devices,
    share::Share,
    sync::{read, write},
};

/// Largest number of shares in the life of a guest; their numbers are not used again.
const MAX_SHARES: u32 = 1 << 24;

/// Why shares or trees cannot be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is not valid.
    #[error("share or tree name {0:?} is not one path component")]
    Name(String),
    /// There is a share with this name.
    #[error("share {0:?} exists already")]
    Exists(String),
    /// There is no share with this name.
    #[error("there is no share {0:?}")]
    NotFound(String),
    /// All numbers are used up.
    #[error("share {0:?}: this VM has had too many shares")]
    TooMany(String),
    /// A tree's descriptor cannot be used.
    #[error("tree {name:?}: {source}")]
    Tree {
        /// The tree.
        name: String,
        /// The cause.
        source: io::Error,
    },
}

/// What a share holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Files and directories that the guest knows, roots of trees included.
    pub nodes: usize,
    /// Files and directories that the guest has open.
    pub handles: usize,
    /// Descriptors: one for each node and each handle, and those for locks.
    pub descriptors: u32,
}

/// The shares.
#[derive(Debug)]
pub struct Shares {
    limits: Limits,
    pot: Arc<Pot>,
    devices: Arc<Devices>,
    table: RwLock<Table>,
}

#[derive(Debug)]
struct Table {
    by_number: BTreeMap<u32, Arc<Share>>,
    next: u32,
}

impl Shares {
    /// Without shares yet.
    pub fn new(limits: Limits) -> Self {
        let table = Table { by_number: BTreeMap::new(), next: 1 };
        Self {
            limits,
            pot: Arc::new(Pot::new(limits.descriptors)),
            devices: Arc::default(),
            table: RwLock::new(table),
        }
    }

    /// Adds an empty share.
    pub fn add(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        let mut table = write(&self.table);
        if table.find(name).is_some() {
            return Err(Error::Exists(name.into()));
        }
        let number = table.next;
        if number >= MAX_SHARES {
            return Err(Error::TooMany(name.into()));
        }
        table.next += 1;
        let share = Share::new(number, name, (&self.pot, &self.devices), self.limits);
        table.by_number.insert(number, Arc::new(share));
        Ok(())
    }

    /// Adds trees to a share.
    pub fn add_trees(&self, share: &str, trees: Vec<(String, OwnedFd)>) -> Result<(), Error> {
        for (name, _) in &trees {
            check_name(name)?;
        }
        let found = read(&self.table).find(share).cloned();
        let share = found.ok_or_else(|| Error::NotFound(share.into()))?;
        for (name, tree) in trees {
            share.add_tree(name.clone(), tree).map_err(|errno| Error::Tree { name, source: errno.into() })?;
        }
        Ok(())
    }

    /// Removes a share and closes what it holds.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let mut table = write(&self.table);
        let number = table.find(name).ok_or_else(|| Error::NotFound(name.into()))?.number();
        let share = table.by_number.remove(&number);
        drop(table);
        if let Some(share) = share {
            share.close();
        }
        Ok(())
    }

    /// The share with this number.
    pub fn get(&self, number: u32) -> Option<Arc<Share>> {
        read(&self.table).by_number.get(&number).cloned()
    }

    /// The share with this name.
    pub fn by_name(&self, name: &[u8]) -> Option<Arc<Share>> {
        read(&self.table).by_number.values().find(|share| share.name().as_bytes() == name).cloned()
    }

    /// The first share with a number above this.
    pub fn after(&self, number: u32) -> Option<Arc<Share>> {
        let above = (std::ops::Bound::Excluded(number), std::ops::Bound::Unbounded);
        read(&self.table).by_number.range(above).next().map(|(_, share)| Arc::clone(share))
    }

    /// All shares, in the order in which they were added.
    pub fn all(&self) -> Vec<Arc<Share>> {
        read(&self.table).by_number.values().cloned().collect()
    }

    /// What each share holds.
    pub fn uses(&self) -> Vec<(String, Use)> {
        let use_of = |share: &Share| Use {
            nodes: share.nodes.count(),
            handles: share.handles.count(),
            descriptors: share.descriptors(),
        };
        self.all().iter().map(|share| (share.name().to_owned(), use_of(share))).collect()
    }
}

impl Table {
    fn find(&self, name: &str) -> Option<&Arc<Share>> {
        self.by_number.values().find(|share| share.name() == name)
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let is_component = Path::new(name).file_name().is_some_and(|file_name| file_name == name);
    if !is_component || name.contains('\0') || name.len() > 255 {
        return Err(Error::Name(name.into()));
    }
    Ok(())
}

#[cfg(test)]
#[path = "shares_test.rs"]
mod tests;
