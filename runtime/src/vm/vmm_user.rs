//! A user of the host for each VM, so that no VMM can signal, trace or read another.
//!
//! The users are a range of IDs that nobody else uses. The kernel knows which of them are taken: in a file, a VMM locks
//! the byte of its user. The VMM and its file server inherit the file description with the lock, which ends with them.
//! So nothing has to be cleaned up when a process dies.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::VmmUsers;

/// The file with the locks, and nothing else. There is one for all roots of stockade, because users belong to the whole
/// host.
const FILE: &str = "/run/stockade-vmm-users";

/// Why a VMM cannot get a user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The file with the locks cannot be used.
    #[error("cannot reserve a user for the VM in {path}: {cause}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// Every user is taken by a VM.
    #[error("all {0} users for VMs are taken; raise vmm_users.count in /etc/stockade/config.toml")]
    Exhausted(u32),
}

/// A user that is reserved while somebody has the descriptor.
#[derive(Debug)]
pub struct VmmUser {
    /// User and group ID.
    pub id: u32,
    /// A read-only description of the file with the locks.
    pub lock: OwnedFd,
}

/// Reserves a user; `None` if this user namespace does not have the range: the VMM then keeps its user.
///
/// # Errors
/// [`UserError`].
pub fn reserve(users: VmmUsers) -> Result<Option<VmmUser>, UserError> {
    let map = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    if !is_mapped(&map("uid_map"), users) || !is_mapped(&map("gid_map"), users) {
        tracing::debug!(
            "users {} to {} are not in this user namespace: the VMM keeps its user, without capabilities",
            users.first,
            users.last()
        );
        return Ok(None);
    }
    let path = Path::new(FILE);
    let start = random() % users.count;
    reserve_in(path, users, start).map(Some)
}

fn reserve_in(path: &Path, users: VmmUsers, start: u32) -> Result<VmmUser, UserError> {
    let failed = |cause| UserError::Lock { path: path.to_owned(), cause };
    let search = || -> io::Result<Option<VmmUser>> {
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        }
        let options = |writes: bool| {
            let mut options = OpenOptions::new();
            options.read(true).write(writes).create(writes).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            options
        };
        let file = options(true).open(path)?;
        // No other process may take a user between the search and the lock.
        file.lock()?;
        let free = (0..users.count).map(|step| (start + step) % users.count).find_map(|index| {
            match conflicting(&file, index) {
                Ok(false) => Some(Ok(index)),
                Ok(true) => None,
                Err(cause) => Some(Err(cause)),
            }
        });
        let Some(index) = free.transpose()? else { return Ok(None) };
        // A VMM that was taken over must not be able to fill the host's memory through this file.
        let lock = options(false).open(path)?;
        set_lock(&lock, libc::F_OFD_SETLK, &mut lock_of(libc::F_RDLCK, index))?;
        Ok(Some(VmmUser { id: users.first + index, lock: lock.into() }))
    };
    search().map_err(failed)?.ok_or(UserError::Exhausted(users.count))
}

/// Whether somebody has locked this byte.
fn conflicting(file: &File, index: u32) -> io::Result<bool> {
    let mut lock = lock_of(libc::F_WRLCK, index);
    set_lock(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
}

fn lock_of(kind: libc::c_int, index: u32) -> libc::flock {
    // SAFETY: all-zero is a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    // The kinds are 0 to 2.
    lock.l_type = kind as libc::c_short;
    lock.l_start = index.into();
    lock.l_len = 1;
    lock
}

fn set_lock(file: &File, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    // SAFETY: the command reads a flock, and may fill it in.
    if unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, std::ptr::from_mut(lock)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether all users are IDs of a user namespace with this `uid_map` or `gid_map`.
fn is_mapped(map: &str, users: VmmUsers) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), _, Some(Ok(count))) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        first <= users.first.into() && u64::from(users.last()) < first + count
    })
}

/// A random number that spreads users over the range: if an ID was used again soon, the files of an earlier VM would
/// look like those of the new one.
fn random() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.subsec_nanos() ^ std::process::id().rotate_left(16)
}

#[cfg(test)]
#[path = "vmm_user_test.rs"]
mod tests;
