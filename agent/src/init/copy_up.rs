//! `tmpcopyup`: copies what the image has at a tmpfs's destination into the tmpfs.
//!
//! The image is hostile: everything is named by a descriptor and one component, and no link is followed.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat, mknodat},
    unistd::{Gid, Uid, fchown, fchownat, symlinkat},
};

use super::rootfs::path_of;
use crate::error::errno_of;

/// Largest depth of directories that are copied: two descriptors are open for each.
const MAX_DEPTH: usize = 256;

/// Copies the content of one directory into another, which is empty.
pub fn copy_content(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    copy_directory(&open_directory(from, OsStr::new("."))?, to, MAX_DEPTH)
}

/// Gives a directory the owner and the mode of another.
pub fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    own(to, &fstat(from)?)
}

fn copy_directory(from: &OwnedFd, to: BorrowedFd<'_>, levels: usize) -> Result<(), Errno> {
    let levels = levels.checked_sub(1).ok_or(Errno::ELOOP)?;
    names(from)?.iter().try_for_each(|name| copy_entry(from, to, name, levels))
}

/// The names in a directory.
pub fn names(directory: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    fs::read_dir(path_of(directory))
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
        .map_err(|error| errno_of(&error))
}

fn copy_entry(from: &OwnedFd, to: BorrowedFd<'_>, name: &OsStr, levels: usize) -> Result<(), Errno> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let private = Mode::S_IRWXU;
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => {
            mkdirat(to, name, private)?;
            let copy = open_directory(to, name)?;
            copy_directory(&open_directory(from.as_fd(), name)?, copy.as_fd(), levels)?;
            own(copy.as_fd(), &stat)
        }
        SFlag::S_IFREG => {
            let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
            let mut source = File::from(openat(from, name, flags | OFlag::O_RDONLY, Mode::empty())?);
            let create = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            let mut copy = File::from(openat(to, name, flags | create, private)?);
            io::copy(&mut source, &mut copy).map_err(|error| errno_of(&error))?;
            own(copy.as_fd(), &stat)
        }
        SFlag::S_IFLNK => {
            symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?;
            change_owner(to, name, &stat)
        }
        // The umask is 0 here.
        kind => {
            mknodat(to, name, kind, Mode::from_bits_truncate(stat.st_mode), stat.st_rdev)?;
            change_owner(to, name, &stat)
        }
    }
}

/// Opens a directory in a directory, without following a link.
pub fn open_directory(at: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Sets the owner, and then the mode: changing the owner clears set-user-ID.
fn own(fd: BorrowedFd<'_>, stat: &FileStat) -> Result<(), Errno> {
    fchown(fd, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(fd, Mode::from_bits_truncate(stat.st_mode))
}

fn change_owner(to: BorrowedFd<'_>, name: &OsStr, stat: &FileStat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
}

#[cfg(test)]
#[path = "copy_up_test.rs"]
mod tests;
