//! The tree that the guest mounts: one folder for each share, each a pass-through of a folder of this namespace.
//!
//! A share is one container's file systems. It has an inode table of its own, so that dropping the share closes every
//! descriptor below it: nothing of a deleted container keeps its file system busy.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use fuse_backend_rs::{
    api::{
        Vfs, VfsOptions,
        filesystem::{FileSystem, FsOptions},
        vfs::VfsError,
    },
    passthrough::{CachePolicy, Config, PassthroughFs},
};

use super::allowed_flags::AllowedFlags;
use crate::isolation::SHARES;

/// How long the guest believes names and attributes.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A share cannot be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is not one.
    #[error("share name {0:?} is not one path component")]
    Name(String),
    /// There is one of this name.
    #[error("share {0:?} exists already")]
    Exists(String),
    /// There is none of this name.
    #[error("there is no share {0:?}")]
    NotFound(String),
    /// Its folder cannot be opened.
    #[error("{SHARES}/{name} of the VMM: {source}")]
    Open {
        /// The share.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The server refuses it.
    #[error("share {name:?}: {source}")]
    Vfs {
        /// The share.
        name: String,
        /// Why.
        source: VfsError,
    },
}

/// The shares of one guest; clones are the same.
#[derive(Clone)]
pub struct Shares {
    vfs: Arc<Vfs>,
}

impl Shares {
    /// An empty tree.
    pub fn new() -> Self {
        let out_opts = FsOptions::ASYNC_READ
            | FsOptions::ATOMIC_O_TRUNC
            | FsOptions::AUTO_INVAL_DATA
            | FsOptions::ASYNC_DIO
            | FsOptions::BIG_WRITES
            | FsOptions::DO_READDIRPLUS
            | FsOptions::HANDLE_KILLPRIV_V2
            | FsOptions::MAX_PAGES
            | FsOptions::PARALLEL_DIROPS
            | FsOptions::READDIRPLUS_AUTO;
        let options = VfsOptions {
            no_open: false,
            no_opendir: false,
            no_writeback: true,
            killpriv_v2: true,
            out_opts,
            ..VfsOptions::default()
        };
        let mut vfs = Vfs::new(options);
        vfs.set_remove_pseudo_root();
        Self { vfs: Arc::new(vfs) }
    }

    /// Serves `/shares/NAME` as `/NAME`.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::NotFound`].
    pub fn add(&self, name: &str) -> Result<(), Error> {
        let path = path_of(name)?;
        let vfs_error = |source| Error::Vfs { name: name.into(), source };
        if self.vfs.get_rootfs(&path).map_err(vfs_error)?.is_some() {
            return Err(Error::Exists(name.into()));
        }
        let open_error = |source| Error::Open { name: name.into(), source };
        let fs = PassthroughFs::<()>::new(config(name)).map_err(open_error)?;
        fs.import().map_err(open_error)?;
        self.vfs.mount(Box::new(AllowedFlags(fs)), &path).map_err(vfs_error)?;
        Ok(())
    }

    /// Stops serving it and closes all that the guest had open there.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::NotFound`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let path = path_of(name)?;
        self.vfs.umount(&path).map_err(|_| Error::NotFound(name.into()))?;
        Ok(())
    }

    /// The tree, for the server.
    pub fn vfs(&self) -> Arc<Vfs> {
        Arc::clone(&self.vfs)
    }

    /// Drops all that the guest has looked up or opened: its device was reset, and its next kernel begins anew.
    pub fn forget_guest(&self) {
        self.vfs.destroy();
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shares").finish_non_exhaustive()
    }
}

/// The name's path in the guest's tree.
fn path_of(name: &str) -> Result<String, Error> {
    let is_component = Path::new(name).file_name().is_some_and(|file_name| file_name == name);
    if !is_component || name.contains('\0') || name.len() > 255 {
        return Err(Error::Name(name.into()));
    }
    Ok(format!("/{name}"))
}

fn config(name: &str) -> Config {
    Config {
        root_dir: format!("{SHARES}/{name}"),
        attr_timeout: TIMEOUT,
        entry_timeout: TIMEOUT,
        cache_policy: CachePolicy::Auto,
        // Names are checked by the tree, which is what imports this file system.
        do_import: false,
        killpriv_v2: true,
        xattr: true,
        // Inode numbers are the host's, so that the table forgets what the guest forgets. It tells inodes apart by mount
        // too: a file that is visible through two mounts, one of them read-only, is two files.
        use_host_ino: true,
        ..Config::default()
    }
}

#[cfg(test)]
#[path = "shares_test.rs"]
mod tests;
