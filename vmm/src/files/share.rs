//! One share: the trees of one container, or of its pod, and everything that the guest knows and holds of them.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, RwLock},
};

use super::{
    Limits,
    budget::{Budget, Permit, Pot},
    handles::Handles,
    inodes::Devices,
    nodes::{Coming, NUMBER_BITS, Node, Nodes, Origin},
    sync::{read, write},
    sys::{self, Result},
};

/// The number, within a share, of its own virtual directory.
pub const DIRECTORY: u64 = 1;

/// A share.
#[derive(Debug)]
pub struct Share {
    number: u32,
    name: String,
    trees: RwLock<Vec<Tree>>,
    /// The nodes that the guest knows.
    pub nodes: Nodes,
    /// The files and directories that the guest has open.
    pub handles: Handles,
    budget: Arc<Budget>,
}

/// A directory or file of the host that the share's virtual directory shows.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Its name in that directory.
    pub name: String,
    /// Its root.
    pub root: Arc<Node>,
}

impl Share {
    /// A share without trees; `of_all` is what all shares have in common.
    pub fn new(number: u32, name: &str, of_all: (&Arc<Pot>, &Arc<Devices>), limits: Limits) -> Self {
        let (pot, devices) = of_all;
        Self {
            number,
            name: name.into(),
            trees: RwLock::default(),
            nodes: Nodes::new(u64::from(number) << NUMBER_BITS, DIRECTORY, Arc::clone(devices)),
            handles: Handles::new(limits.handles_per_share as usize),
            budget: Arc::new(Budget::new(Arc::clone(pot), limits.descriptors_per_share)),
        }
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node of its virtual directory.
    pub fn directory(&self) -> u64 {
        u64::from(self.number) << NUMBER_BITS | DIRECTORY
    }

    /// Shows one more tree. If there is a tree of that name, it stays, and the new one's descriptor is closed.
    pub fn add_tree(&self, name: String, tree: OwnedFd) -> Result<()> {
        let mut trees = write(&self.trees);
        if trees.iter().any(|known| known.name == name) {
            return Ok(());
        }
        let stat = sys::stat(tree.as_fd())?;
        let coming = if has_parent(tree.as_fd(), &stat) { Coming::Below } else { Coming::Never };
        let root = self.nodes.add(tree, &stat, Origin::Tree(coming), self.budget.take_anyway())?;
        trees.push(Tree { name, root });
        Ok(())
    }

    /// The root of the tree with this name.
    pub fn tree(&self, name: &[u8]) -> Option<Arc<Node>> {
        read(&self.trees).iter().find(|tree| tree.name.as_bytes() == name).map(|tree| Arc::clone(&tree.root))
    }

    /// A tree by its index, which it keeps.
    pub fn tree_at(&self, place: usize) -> Option<Tree> {
        read(&self.trees).get(place).cloned()
    }

    /// Takes the right to one more descriptor.
    pub fn take_descriptor(&self) -> Result<Permit> {
        self.budget.take()
    }

    /// Whether descriptors are running out.
    pub fn is_scarce(&self) -> bool {
        self.budget.is_scarce()
    }

    /// Number of descriptors that it holds, including those of requests that are being handled.
    pub fn descriptors(&self) -> u32 {
        self.budget.used()
    }

    /// Forgets what the guest knows and closes what it has open.
    pub fn reset(&self) {
        self.handles.reset();
        self.nodes.reset();
    }

    /// Closes everything for good. A request that is being handled keeps what it works with until it is done.
    pub fn close(&self) {
        self.handles.close();
        let trees = std::mem::take(&mut *write(&self.trees));
        self.nodes.close();
        drop(trees);
    }
}

/// Whether a tree is mounted somewhere. The kernel passes on what the host mounts later only to trees that are mounted;
/// of others, the runtime hands over a detached mount. A tree that cannot be entered shows nothing anyway.
fn has_parent(tree: BorrowedFd<'_>, stat: &libc::statx) -> bool {
    u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFDIR
        && sys::stat_at(tree, c"..").is_ok_and(|above| above.stx_mnt_id != stat.stx_mnt_id)
}
