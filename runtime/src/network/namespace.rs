//! The network namespace of a pod, and entering it for a moment.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;

use super::NetworkError;

/// The host's network namespace of the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// A new one.
    New,
    /// The namespace that the caller has made, at this path.
    Path(PathBuf),
}

impl NetworkNamespace {
    /// The path, if the caller has made the namespace.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::New => None,
            Self::Path(path) => Some(path),
        }
    }
}

/// A network namespace, open.
#[derive(Debug)]
pub struct Namespace {
    path: PathBuf,
    file: File,
    /// Whether this process is in it.
    is_entered: bool,
}

impl Namespace {
    /// Opens the namespace at a path.
    ///
    /// # Errors
    /// [`NetworkError::Namespace`].
    pub fn open(path: &Path) -> Result<Self, NetworkError> {
        let file = File::open(path).map_err(|cause| namespace(path, cause))?;
        Ok(Self { path: path.to_owned(), file, is_entered: false })
    }

    /// Enters the namespace for good, in a process that has one thread.
    ///
    /// # Errors
    /// [`NetworkError::Namespace`].
    pub fn enter(&mut self) -> Result<(), NetworkError> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| namespace(&self.path, errno.into()))?;
        self.is_entered = true;
        Ok(())
    }

    /// Its nsfs inode, which identifies it under every path.
    ///
    /// # Errors
    /// [`NetworkError::Namespace`].
    pub fn inode(&self) -> Result<u64, NetworkError> {
        let stat = fstat(&self.file).map_err(|errno| namespace(&self.path, errno.into()))?;
        Ok(stat.st_ino)
    }

    /// Calls `work` in the namespace. If the process has not entered it, a thread of its own does that, so that the
    /// calling thread never leaves its namespace.
    ///
    /// # Errors
    /// [`NetworkError::Namespace`], or those of `work`.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        if self.is_entered {
            return work();
        }
        let enter = || setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || {
                enter().map_err(|errno| namespace(&self.path, errno.into()))?;
                work()
            });
            let joined = thread.map_err(|cause| namespace(&self.path, cause))?.join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn namespace(path: &Path, cause: io::Error) -> NetworkError {
    NetworkError::Namespace { path: path.to_owned(), cause }
}
