//! The files of a VM that 0.1 has started. It has no file server: its VMM serves what is mounted below `/shares` of its own mount
//! namespace. Pods outlive upgrades, so the trees of their containers are still mounted this way.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::wait::WaitStatus;
use stockade_sys::mount_api;

use crate::sys::process;

/// The shares' directory in the VMM's mount namespace.
const SHARES: &str = "/shares";

/// Mounts trees in a new share, which the VMM does not serve to the guest yet.
///
/// # Errors
/// An error of the file system.
pub fn attach(vmm: BorrowedFd<'_>, share: &str, trees: &[(String, OwnedFd)]) -> io::Result<()> {
    let directory = Path::new(SHARES).join(share);
    inside(vmm, || {
        make_directory(&directory)?;
        trees.iter().try_for_each(|(name, tree)| {
            let target = directory.join(name);
            let kind = SFlag::from_bits_truncate(fstat(tree)?.st_mode & SFlag::S_IFMT.bits());
            if kind == SFlag::S_IFDIR {
                make_directory(&target)?
            } else {
                drop(fs::File::create_new(&target)?)
            }
            Ok(mount_api::attach_at(tree, &target)?)
        })
    })
}

/// Mounts trees of directories in a share that the VMM serves to the guest already. A tree of the same name stays.
///
/// # Errors
/// An error of the file system.
pub fn attach_more(vmm: BorrowedFd<'_>, share: &str, trees: &[(String, OwnedFd)]) -> io::Result<()> {
    let directory = Path::new(SHARES).join(share);
    inside(vmm, || {
        // Two containers of a pod may be created at the same time.
        let lock = fs::File::open(&directory)?;
        lock.lock()?;
        let device = lock.metadata()?.dev();
        trees.iter().try_for_each(|(name, tree)| {
            let target = directory.join(name);
            match make_directory(&target) {
                // The process that has made the directory may have died before it mounted something there.
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                    if fs::metadata(&target)?.dev() != device {
                        return Ok(());
                    }
                }
                made => made?,
            }
            Ok(mount_api::attach_at(tree, &target)?)
        })
    })
}

/// Unmounts a share that the VMM no longer serves to the guest.
///
/// # Errors
/// An error of the file system.
pub fn detach(vmm: BorrowedFd<'_>, share: &str) -> io::Result<()> {
    let directory = Path::new(SHARES).join(share);
    inside(vmm, || {
        let entries = match fs::read_dir(&directory) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            // A tree that was never mounted leaves only a directory or file to remove.
            let _ = umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
            fs::remove_dir(&path).or_else(|_| fs::remove_file(&path))?;
        }
        fs::remove_dir(&directory)
    })
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(path)
}

/// Calls `body` in the VMM's mount namespace, in a child process: only a process with one thread may enter it.
fn inside(vmm: BorrowedFd<'_>, body: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (mut problem, mut reporter) = io::pipe()?;
    let body = || {
        let done = setns(vmm, CloneFlags::CLONE_NEWNS).map_err(io::Error::from).and_then(|()| body());
        let Err(cause) = done else { return 0 };
        // The exit status tells of the failure even if its reason cannot be written.
        let _ = write!(reporter, "{cause}");
        1
    };
    // SAFETY: commands have one thread.
    let child = unsafe { process::clone(0, None, body) }?;
    drop(reporter);
    let mut text = String::new();
    let read = problem.read_to_string(&mut text);
    match child.reap()? {
        WaitStatus::Exited(_, 0) => read.map(drop),
        status if text.is_empty() => Err(io::Error::other(format!("its helper ended with {status:?}"))),
        _ => Err(io::Error::other(text)),
    }
}

#[cfg(test)]
#[path = "mounted_test.rs"]
mod tests;
