//! POSIX locks of a file, for the processes of a guest.
//!
//! A POSIX lock belongs to a process and a file: the first lock of a process opens the file once more, and that open file takes
//! the process's locks until one of its descriptors of the file is closed.

use std::{
    ffi::c_int,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Mutex,
};

use super::{
    abi::{FileLock, LockIn},
    budget::Permit,
    sync::lock,
    sys::{self, Errno, Result},
};

/// How many owners are asked whether they are the one that is in the way.
const MAX_ASKED: usize = 64;

/// The POSIX locks of a node, by owner.
#[derive(Debug, Default)]
pub struct RangeLocks {
    owners: Mutex<Vec<Owner>>,
}

/// A process of the guest that holds locks.
#[derive(Debug)]
struct Owner {
    id: u64,
    pid: u32,
    fd: OwnedFd,
    _permit: Permit,
}

impl RangeLocks {
    /// Takes or gives back a lock, as SETLK asks. `open` opens the file for a process that has no lock of it yet.
    pub fn set(&self, wanted: &LockIn, open: impl FnOnce() -> Result<(Permit, OwnedFd)>) -> Result<()> {
        let mut range = range(&wanted.lock)?;
        let unlocks = c_int::from(range.l_type) == libc::F_UNLCK;
        let mut owners = lock(&self.owners);
        let place = owners.iter().position(|owner| owner.id == wanted.owner);
        let place = match place {
            Some(place) if unlocks && (range.l_start, range.l_len) == (0, 0) => {
                owners.swap_remove(place);
                return Ok(());
            }
            Some(place) => place,
            None if unlocks => return Ok(()),
            None => {
                let (permit, fd) = open()?;
                owners.push(Owner { id: wanted.owner, pid: wanted.lock.pid, fd, _permit: permit });
                owners.len() - 1
            }
        };
        sys::lock_range(owners[place].fd.as_fd(), libc::F_OFD_SETLK, &mut range)
    }

    /// What is in the way of a lock, as GETLK asks. `file` is open on the file, and holds no lock of this kind.
    pub fn find(&self, wanted: &LockIn, file: BorrowedFd<'_>) -> Result<FileLock> {
        let mut range = range(&wanted.lock)?;
        let owners = lock(&self.owners);
        let own = owners.iter().find(|owner| owner.id == wanted.owner).map(|owner| owner.fd.as_fd());
        sys::lock_range(own.unwrap_or(file), libc::F_OFD_GETLK, &mut range)?;
        let mut found = FileLock {
            start: range.l_start.unsigned_abs(),
            end: match range.l_len {
                0 => i64::MAX.unsigned_abs(),
                length => range.l_start.saturating_add(length - 1).unsigned_abs(),
            },
            kind: u32::from(range.l_type.unsigned_abs()),
            pid: 0,
        };
        if c_int::from(range.l_type) == libc::F_UNLCK {
            found = FileLock { kind: found.kind, ..wanted.lock };
        } else if let Some(owner) = holder(&owners, wanted.owner, &range) {
            found.pid = owner.pid;
        }
        Ok(found)
    }

    /// Gives back all that the owner holds.
    pub fn release(&self, owner: u64) {
        let mut owners = lock(&self.owners);
        if let Some(place) = owners.iter().position(|other| other.id == owner) {
            owners.swap_remove(place);
        }
    }
}

/// A range as fcntl(2) has it.
fn range(wanted: &FileLock) -> Result<libc::flock> {
    let invalid = Errno::new(libc::EINVAL);
    let kind = match wanted.kind as c_int {
        kind @ (libc::F_RDLCK | libc::F_WRLCK | libc::F_UNLCK) => kind,
        _ => return Err(invalid),
    };
    let start = i64::try_from(wanted.start).map_err(|_| invalid)?;
    let end = i64::try_from(wanted.end).map_err(|_| invalid)?;
    let length = match end {
        // To the end of the file, wherever it will be.
        i64::MAX => 0,
        _ => end.checked_sub(start).filter(|length| *length >= 0).ok_or(invalid)? + 1,
    };
    Ok(libc::flock {
        // The three kinds are small numbers.
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    })
}

/// The owner that is in the way of nothing but others: it holds the lock. Processes of the host have no number in the guest.
fn holder<'a>(owners: &'a [Owner], asker: u64, held: &libc::flock) -> Option<&'a Owner> {
    owners.iter().filter(|owner| owner.id != asker).take(MAX_ASKED).find(|owner| {
        let mut range = libc::flock { l_type: libc::F_WRLCK as libc::c_short, l_pid: 0, ..*held };
        sys::lock_range(owner.fd.as_fd(), libc::F_OFD_GETLK, &mut range).is_ok()
            && c_int::from(range.l_type) == libc::F_UNLCK
    })
}
