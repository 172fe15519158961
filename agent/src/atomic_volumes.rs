//! Copies of small directories of the host, so that inotify tells their containers of changes.
//!
//! A shared file system reports to inotify(7) only what the guest itself does. What kubelet makes of ConfigMaps and Secrets
//! is small, and changes in one way:
//!
//! ```text
//!  key → ..data/key        one link for every key
//!  ..data → ..2024_1       swapped by rename(2) when the directory that it leads to is complete
//!  ..2024_1/key            the content, which never changes
//! ```
//!
//! The same is done in the copy, so that whoever watches it sees what the watcher of a directory of the host sees.
//! The copy lies in a tmpfs of the agent's, of which the container has a read-only mount.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::ErrorKind as IoErrorKind,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, readlinkat, renameat},
    mount::{MsFlags, mount},
    sys::{
        stat::{Mode, SFlag, fstatat, mkdirat},
        timerfd::TimerFd,
    },
    unistd::{UnlinkatFlags, symlinkat, unlinkat},
};
use stockade_protocol::container::{Mount, MountSource};

use crate::{
    error::{Result, errno_of},
    init::{
        copy_up::{copy_attributes, copy_content, names, open_directory},
        rootfs::{open_below, open_shared, path_of},
    },
    poller::Token,
};

/// The directory of all copies; each has the path that its directory has in the share.
const ROOT: &str = "/run/copies";

/// Options of the tmpfs, which limit all copies of the guest together. While a copy changes, it has two versions.
const OPTIONS: &str = "mode=0700,size=32m,nr_inodes=32k";

/// Longest content of a copy, in bytes: two ConfigMaps of the size that Kubernetes allows.
const MAX_BYTES: u64 = 2 << 20;

/// Largest number of files and directories in a copy.
const MAX_FILES: usize = 1024;

/// Largest depth of directories in a copy.
const MAX_DEPTH: usize = 8;

/// The name of the link that is swapped.
const DATA: &str = "..data";

/// The name of the link that replaces it.
const NEW_DATA: &str = "..data_tmp";

/// The copies of one container, which are removed with it.
#[derive(Debug, Default)]
pub struct AtomicVolumes {
    /// Paths in the share.
    shares: Vec<String>,
    /// The directories of the copies.
    directories: Vec<PathBuf>,
    /// The timer for the next refresh, while one is due.
    pub due: Option<(TimerFd, Token)>,
}

impl AtomicVolumes {
    /// Copies the directories that the mounts ask for; a directory that cannot be copied is shared as it is.
    pub fn make(mounts: &[Mount]) -> Self {
        let mut copies = Self::default();
        for mount in mounts {
            let MountSource::Copy(share) = &mount.source else { continue };
            let directory = Path::new(ROOT).join(share);
            match make(share, &directory) {
                Ok(()) => {
                    copies.shares.push(share.clone());
                    copies.directories.push(directory);
                }
                Err(errno) => {
                    let _ = fs::remove_dir_all(&directory);
                    complain(&mount.destination, errno);
                }
            }
        }
        copies
    }

    /// Whether there are no copies.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// Makes in the copies what has changed on the host.
    pub fn refresh(&self) {
        for share in &self.shares {
            let refreshed =
                open_shared(share).and_then(|from| refresh(from.as_fd(), open_below(ROOT, share)?.as_fd()));
            if let Err(errno) = refreshed {
                complain(share, errno);
            }
        }
    }
}

impl Drop for AtomicVolumes {
    fn drop(&mut self) {
        for directory in &self.directories {
            // The parent directory is removed with the container's last copy.
            let removed = fs::remove_dir_all(directory);
            let _ = directory.parent().map(fs::remove_dir);
            if let Err(cause) = removed {
                eprintln!("stockade-agent: remove {}: {cause}", directory.display());
            }
        }
    }
}

/// Reports on the guest's console that a directory is not copied.
fn complain(what: &str, errno: Errno) {
    eprintln!("stockade-agent: {what} is shared as it is instead of copied: {}", errno.desc());
}

/// Opens the directory for a container: the copy, or the shared directory if there is no copy.
pub fn open(share: &str) -> Result<OwnedFd, Errno> {
    match open_below(ROOT, share) {
        Err(Errno::ENOENT) => open_shared(share),
        copy => copy,
    }
}

fn make(share: &str, directory: &Path) -> Result<(), Errno> {
    let from = open_shared(share)?;
    let made = |result: std::io::Result<()>| result.map_err(|cause| errno_of(&cause));
    match fs::create_dir(ROOT) {
        Ok(()) => {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("tmpfs"), ROOT, Some("tmpfs"), flags, Some(OPTIONS))?;
        }
        Err(cause) if cause.kind() == IoErrorKind::AlreadyExists => {}
        Err(cause) => return Err(errno_of(&cause)),
    }
    made(fs::create_dir_all(directory))?;
    let to = open_below(ROOT, share)?;
    refresh(from.as_fd(), to.as_fd())?;
    let to = open_directory(to.as_fd(), OsStr::new("."))?;
    copy_attributes(from.as_fd(), to.as_fd())
}

/// Makes `to` a copy of `from`, in the steps in which kubelet changes a directory.
fn refresh(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let data = readlinkat(from, DATA)?;
    if !is_hidden(&data) || data.as_bytes().contains(&b'/') || data == ".." {
        return Err(Errno::ENOTSUP);
    }
    let links = links(from)?;
    let old = readlinkat(to, DATA).ok();
    if old.as_ref() != Some(&data) {
        if let Err(errno) = copy_version(from, to, &data) {
            let _ = remove(to, &data);
            return Err(errno);
        }
        let _ = unlinkat(to, NEW_DATA, UnlinkatFlags::NoRemoveDir);
        symlinkat(data.as_os_str(), to, NEW_DATA)?;
        renameat(to, NEW_DATA, to, DATA)?;
    }
    for (name, target) in &links {
        match readlinkat(to, name.as_os_str()) {
            Ok(found) if found == *target => continue,
            Ok(_) => unlinkat(to, name.as_os_str(), UnlinkatFlags::NoRemoveDir)?,
            Err(_) => {}
        }
        symlinkat(target.as_os_str(), to, name.as_os_str())?;
    }
    for name in names(&open_directory(to, OsStr::new("."))?)? {
        if !is_hidden(&name) && !links.iter().any(|(kept, _)| *kept == name) {
            unlinkat(to, name.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
        }
    }
    match old {
        Some(old) if old != data => remove(to, &old),
        _ => Ok(()),
    }
}

/// The links of a directory with their targets, except those that belong to the swap.
///
/// # Errors
/// ENOTSUP if there is something else in the directory.
fn links(directory: BorrowedFd<'_>) -> Result<Vec<(OsString, OsString)>, Errno> {
    let names = names(&open_directory(directory, OsStr::new("."))?)?;
    if names.len() > MAX_FILES {
        return Err(Errno::EFBIG);
    }
    names
        .into_iter()
        .filter(|name| !is_hidden(name))
        .map(|name| match readlinkat(directory, name.as_os_str()) {
            Ok(target) => Ok((name, target)),
            Err(Errno::EINVAL) => Err(Errno::ENOTSUP),
            Err(errno) => Err(errno),
        })
        .collect()
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"..")
}

/// Copies the directory of one version.
fn copy_version(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let from = open_directory(from, name)?;
    let (mut files, mut bytes) = (MAX_FILES, MAX_BYTES);
    count(&from, &mut files, &mut bytes, MAX_DEPTH)?;
    mkdirat(to, name, Mode::S_IRWXU)?;
    let to = open_directory(to, name)?;
    copy_content(from.as_fd(), to.as_fd())?;
    copy_attributes(from.as_fd(), to.as_fd())
}

/// Subtracts the files and bytes of a directory from those that are still allowed.
fn count(directory: &OwnedFd, files: &mut usize, bytes: &mut u64, levels: usize) -> Result<(), Errno> {
    let levels = levels.checked_sub(1).ok_or(Errno::EFBIG)?;
    for name in names(directory)? {
        *files = files.checked_sub(1).ok_or(Errno::EFBIG)?;
        let stat = fstatat(directory, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => count(&open_directory(directory.as_fd(), &name)?, files, bytes, levels)?,
            SFlag::S_IFREG => {
                let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
                *bytes = bytes.checked_sub(size).ok_or(Errno::EFBIG)?;
            }
            SFlag::S_IFLNK => {}
            _ => return Err(Errno::ENOTSUP),
        }
    }
    Ok(())
}

fn remove(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match fs::remove_dir_all(Path::new(&path_of(&directory)).join(name)) {
        Err(cause) if cause.kind() != IoErrorKind::NotFound => Err(errno_of(&cause)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "atomic_volumes_test.rs"]
mod tests;
