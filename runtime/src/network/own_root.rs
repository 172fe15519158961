//! A root directory for a process that keeps a VM's network in step: of the host's files it has only one container's
//! state and the device that makes taps.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, fchdir, pivot_root};
use stockade_sys::landlock::{self, Beneath, access};
use stockade_sys::mount_api::{
    MountAttributes, attach, attach_at, attr, clone_tree_at, new_file_system, restrict, set_attributes,
};

use super::tap;
use crate::sys::mount::own_processes;

/// The process's rights to the container's state.
const READ_RIGHTS: u64 = access::READ_FILE | access::READ_DIR;

/// The process's rights to the directory in which it saves its own state: it replaces a file as a whole.
const WRITE_RIGHTS: u64 = access::READ_FILE
    | access::WRITE_FILE
    | access::READ_DIR
    | access::REMOVE_FILE
    | access::MAKE_REG
    | access::TRUNCATE;

/// The process's rights to the device.
const TUN_RIGHTS: u64 = access::READ_FILE | access::WRITE_FILE | access::IOCTL_DEV;

/// Makes this directory the root of the calling process, which has a mount namespace of its own, and forbids all other
/// files by Landlock if the kernel has that. The directory `state` keeps its path and can be read; `own`, a directory
/// in it, can be written to. TCP connections are allowed to `ports` only.
///
/// # Errors
/// Those of the system calls.
pub fn enter(state: &Path, own: &Path, ports: &[u16]) -> io::Result<()> {
    let none = None::<&Path>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let (tree, own_tree) = (clone_tree_at(state, false, false)?, clone_tree_at(own, false, false)?);
    restrict(tree.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    restrict(own_tree.as_fd(), attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    // Without it there are no taps; making one will then fail.
    let tun = clone_tree_at(Path::new(tap::DEVICE), false, false).ok();
    let proc = own_processes()?;
    let root = new_file_system("tmpfs", "tmpfs", "", attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    attach_at(&root, state)?;
    fchdir(&root)?;

    let state = inside(state);
    fs::create_dir_all(&state)?;
    attach(&tree, open(&state)?)?;
    attach(&own_tree, open(&inside(own))?)?;
    fs::create_dir_all("proc")?;
    attach(&proc, open(Path::new("proc"))?)?;
    if let Some(tun) = &tun {
        restrict(tun.as_fd(), attr::NOSUID | attr::NOEXEC)?;
        let device = inside(Path::new(tap::DEVICE));
        device.parent().map(fs::create_dir_all).transpose()?;
        File::create(&device)?;
        attach(tun, open(&device)?)?;
    }
    // The old root is now on top of the new one, and "." is beneath both.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    set_attributes(&root, MountAttributes::READONLY, false)?;

    let beneath = |file, rights| Beneath { file, rights };
    let allowed = [
        Some(beneath(tree.as_fd(), READ_RIGHTS)),
        Some(beneath(own_tree.as_fd(), WRITE_RIGHTS)),
        tun.as_ref().map(|tun| beneath(tun.as_fd(), TUN_RIGHTS)),
    ];
    let allowed: Vec<_> = allowed.into_iter().flatten().collect();
    Ok(landlock::restrict(&allowed, ports)?)
}

/// The path below the current directory for an absolute path.
fn inside(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?.into())
}
