//! Paths inside the container's root, before it is the root: the image is hostile, and its symbolic links
//! must neither lead out of it nor stop a mount whose target they name.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat},
    sys::stat::{Mode, mkdirat},
};

/// Symbolic links that are followed to a name that does not exist yet; the kernel's own limit.
const MAX_LINKS: usize = 40;

/// A container's root, seen from outside.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// What is made where nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// The root that this directory is.
    pub fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Opens what `path` names, with links followed as if this were the root.
    pub fn open(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        // EAGAIN: something was renamed meanwhile, and the kernel could not be sure.
        loop {
            match openat2(&self.0, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    /// As [`open`](Self::open) with O_PATH, after making what is missing of `path`.
    pub fn open_or_create(&self, path: &Path, missing: Missing) -> Result<OwnedFd, Errno> {
        self.create_through(path.to_owned(), missing, MAX_LINKS)
    }

    /// The directory that `path` is in, made if it is missing, and the name in it.
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
        match make(&directory, Path::new(name), missing) {
            // It is there and yet was not found: a link to something that is not.
            Err(Errno::EEXIST) if links > 0 => {
                let target = readlinkat(&directory, name)?;
                self.create_through(parent.join(target), missing, links - 1)
            }
            Err(Errno::EEXIST) => Err(Errno::ELOOP),
            result => result,
        }
    }
}

/// Makes `name`, which must not exist, in a directory, and opens it.
fn make(directory: &OwnedFd, name: &Path, missing: Missing) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match missing {
        Missing::Directory => {
            mkdirat(directory, name, Mode::from_bits_retain(0o755))?;
            openat(directory, name, flags | OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())
        }
        Missing::File => {
            let create = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
            openat(directory, name, flags | create, Mode::from_bits_retain(0o644))
        }
    }
}

#[cfg(test)]
#[path = "resolve_test.rs"]
mod tests;
