//! Trees that follow the host: what the host mounts or unmounts in them later, the container sees.
//!
//! The kernel passes mounts on only to mounts of a namespace. So such trees are attached in a mount namespace of their
//! own, which holds nothing else: whoever has taken over the file server and goes up from a tree finds only the
//! container's trees. The namespace has no process; it lives as long as the relay has it open.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{chdir, pivot_root};
use stockade_sys::mount_api::{MountAttributes, attach, attach_at, attr, new_file_system, set_attributes};

/// The mount namespace of the caller.
const NAMESPACE: &str = "/proc/self/ns/mnt";

/// A directory that exists, on which the namespace's root is mounted before it becomes the root.
const STEPPING_STONE: &str = "/proc";

/// Attaches the trees; returns a descriptor that keeps them attached. Afterwards the caller is in its own mount
/// namespace again, at its root.
///
/// # Errors
/// Those of mounting, and of making and joining namespaces.
pub(super) fn attach_trees<'a>(trees: impl Iterator<Item = &'a OwnedFd>) -> io::Result<OwnedFd> {
    let own = File::open(NAMESPACE)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let made = fill(trees);
    setns(own, CloneFlags::CLONE_NEWNS)?;
    made
}

fn fill<'a>(trees: impl Iterator<Item = &'a OwnedFd>) -> io::Result<OwnedFd> {
    let namespace = File::open(NAMESPACE)?;
    let harmless = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let root = new_file_system("tmpfs", "stockade", "mode=0555", harmless)?;
    attach_at(&root, Path::new(STEPPING_STONE))?;
    chdir(STEPPING_STONE)?;
    // The old root is now on top of the new one, and "." is beneath both.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    for (number, tree) in trees.enumerate() {
        let name = number.to_string();
        mkdirat(&root, name.as_str(), Mode::from_bits_retain(0o555))?;
        attach(tree, directory(&root, &name)?)?;
    }
    set_attributes(&root, MountAttributes::READONLY, false)?;
    Ok(namespace.into())
}

fn directory(root: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(root, name, flags, Mode::empty())
}
