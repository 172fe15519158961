//! Paths inside a container's root, before it is the root: the image is hostile, and its symbolic links
//! must neither lead out of it nor stop a mount whose target they name.

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat},
    sys::stat::{Mode, mkdirat},
    unistd::{Gid, Uid, fchownat},
};

use crate::done;

/// Symbolic links that are followed to a name that does not exist yet; the kernel's own limit.
const MAX_LINKS: usize = 40;

/// A container's root, seen from outside.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    /// User and group of what is made, where that is not the caller's.
    owner: Option<(u32, u32)>,
}

/// What is made where nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A directory.
    Directory,
    /// A directory that everybody may write to: a tmpfs without `mode=` takes the mode of what it covers.
    Scratch,
    /// An empty file.
    File,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Root {
    /// Takes this directory as the root.
    pub fn new(directory: OwnedFd) -> Self {
        Self { directory, owner: None }
    }

    /// Gives what is made in the root to this user and group.
    pub fn owned_by(self, user: u32, group: u32) -> Self {
        Self { owner: Some((user, group)), ..self }
    }

    /// Takes another directory as the root from now on, because something was mounted on the former one.
    pub fn replace(&mut self, directory: OwnedFd) {
        self.directory = directory;
    }

    /// Whether `found` is the root's own directory.
    ///
    /// # Errors
    /// statx(2)'s.
    pub fn is(&self, found: impl AsFd) -> Result<bool, Errno> {
        Ok(place(self.directory.as_fd())? == place(found.as_fd())?)
    }

    /// Opens what `path` names, with links followed as if this were the root.
    ///
    /// # Errors
    /// openat2(2)'s.
    pub fn open(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        // EAGAIN: something was renamed meanwhile, and the kernel asks to try again.
        loop {
            match openat2(&self.directory, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    /// As [`open`](Self::open) with O_PATH, after making what is missing of `path`.
    ///
    /// # Errors
    /// Those of openat2(2), mkdirat(2) and fchownat(2).
    pub fn open_or_create(&self, path: &Path, missing: Missing) -> Result<OwnedFd, Errno> {
        self.create_through(path.to_owned(), missing, MAX_LINKS)
    }

    /// As [`open_or_create`](Self::open_or_create), but a link at `path` is opened itself and not followed.
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create).
    pub fn open_or_create_unfollowed(&self, path: &Path, missing: Missing) -> Result<OwnedFd, Errno> {
        let (directory, name) = match self.parent(path) {
            // The root has no name.
            Err(Errno::EINVAL) => return self.open(path, OFlag::O_PATH),
            parent => parent?,
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&directory, name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => self.make(&directory, name, missing),
            found => found,
        }
    }

    /// The directory that `path` is in, made if it is missing, and the name in it.
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create); EINVAL where `path` has no name at its end.
    pub fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a Path), Errno> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::EINVAL) };
        Ok((self.open_or_create(parent, Missing::Directory)?, Path::new(name)))
    }

    fn create_through(&self, path: PathBuf, missing: Missing, links: usize) -> Result<OwnedFd, Errno> {
        match self.open(&path, OFlag::O_PATH) {
            Err(Errno::ENOENT) => {}
            result => return result,
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::ENOENT) };
        let directory = self.create_through(parent.to_owned(), Missing::Directory, links)?;
        match self.make(&directory, Path::new(name), missing) {
            // The name exists, but was not found: it is a link to something that does not exist.
            Err(Errno::EEXIST) if links > 0 => {
                let target = readlinkat(&directory, name)?;
                self.create_through(parent.join(target), missing, links - 1)
            }
            Err(Errno::EEXIST) => Err(Errno::ELOOP),
            result => result,
        }
    }

    /// Makes `name`, which must not exist, in a directory, and opens it.
    fn make(&self, directory: &OwnedFd, name: &Path, missing: Missing) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = match missing {
            Missing::Directory | Missing::Scratch => {
                let mode = if missing == Missing::Scratch { 0o1777 } else { 0o755 };
                mkdirat(directory, name, Mode::from_bits_retain(mode))?;
                openat(directory, name, flags | OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())?
            }
            Missing::File => {
                let create = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
                openat(directory, name, flags | create, Mode::from_bits_retain(0o644))?
            }
        };
        if let Some((user, group)) = self.owner {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            fchownat(&made, "", Some(user), Some(group), AtFlags::AT_EMPTY_PATH)?;
        }
        Ok(made)
    }
}

/// What tells a file or directory of one mount from all others: mount, device, inode.
fn place(file: BorrowedFd<'_>) -> Result<(u64, u32, u32, u64), Errno> {
    const WANTED: libc::c_uint = libc::STATX_INO | libc::STATX_MNT_ID;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // Not by the C library's function: a static program with link-time optimisation may be without it.
    // SAFETY: the path is NUL-terminated, and the kernel fills in one structure, for which all zeros is a value.
    let found = unsafe {
        let (at, path, buffer) = (file.as_raw_fd(), c"".as_ptr(), found.as_mut_ptr());
        // The kernel knows these without asking a file system's server.
        let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
        done(libc::syscall(libc::SYS_statx, at, path, flags, WANTED, buffer))?;
        found.assume_init()
    };
    Ok((found.stx_mnt_id, found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
}

#[cfg(test)]
#[path = "resolve_test.rs"]
mod tests;
