//! Locks that the host grants ([`super::Limits::host_locks`]).
//!
//! flock(2) belongs to an open file, which is a handle here and an open file of the host, so the handle's descriptor takes the
//! lock. A POSIX lock belongs to a process and a file: the first lock of a process opens the file once more, and that open
//! file takes the process's locks until one of its descriptors of the file is closed (FLUSH). The server takes what is
//! free and never waits.

use std::{
    ffi::c_int,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Mutex,
};

use super::{
    abi::{FileLock, LOCK_FLOCK, LockIn, LockOut},
    budget::Permit,
    nodes::Node,
    reply::Outcome,
    request::refuse,
    server::{Call, Place},
    share::Share,
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

/// SETLK and SETLKW.
pub fn set(call: &mut Call<'_>) -> Outcome {
    let wanted: LockIn = call.request.take()?;
    if !call.server.limits.host_locks {
        return refuse(libc::ENOSYS);
    }
    let Place::Node(share, _) = call.place()? else { return refuse(libc::EBADF) };
    let handle = share.handles.file(wanted.fh)?;
    if wanted.lk_flags & LOCK_FLOCK != 0 {
        let operation = match wanted.lock.kind as c_int {
            libc::F_RDLCK => libc::LOCK_SH,
            libc::F_WRLCK => libc::LOCK_EX,
            libc::F_UNLCK => libc::LOCK_UN,
            _ => return refuse(libc::EINVAL),
        };
        sys::lock_file(handle.as_fd(), operation | libc::LOCK_NB)?;
    } else {
        set_range(&share, handle.node(), call.server.fds(), &wanted)?;
    }
    Ok(0)
}

fn set_range(share: &Share, node: &Node, fds: BorrowedFd<'_>, wanted: &LockIn) -> Result<()> {
    let mut range = range(&wanted.lock)?;
    let unlocks = c_int::from(range.l_type) == libc::F_UNLCK;
    let mut owners = lock(&node.locks.owners);
    let place = owners.iter().position(|owner| owner.id == wanted.owner);
    let place = match place {
        Some(place) if unlocks && (range.l_start, range.l_len) == (0, 0) => {
            owners.swap_remove(place);
            return Ok(());
        }
        Some(place) => place,
        None if unlocks => return Ok(()),
        None => {
            let owner = Owner {
                id: wanted.owner,
                pid: wanted.lock.pid,
                _permit: share.take_descriptor()?,
                fd: open(fds, node)?,
            };
            owners.push(owner);
            owners.len() - 1
        }
    };
    sys::lock_range(owners[place].fd.as_fd(), libc::F_OFD_SETLK, &mut range)
}

/// A read lock takes a descriptor that can read, a write lock one that can write.
fn open(fds: BorrowedFd<'_>, node: &Node) -> Result<OwnedFd> {
    // Nobody waits for a lease.
    let how = libc::O_NONBLOCK | libc::O_NOCTTY;
    sys::reopen(fds, node.as_fd(), libc::O_RDWR | how)
        .or_else(|_| sys::reopen(fds, node.as_fd(), libc::O_RDONLY | how))
}

/// GETLK: what is in the way of a lock.
pub fn query(call: &mut Call<'_>) -> Outcome {
    let wanted: LockIn = call.request.take()?;
    if !call.server.limits.host_locks {
        return refuse(libc::ENOSYS);
    }
    let Place::Node(share, _) = call.place()? else { return refuse(libc::EBADF) };
    let handle = share.handles.file(wanted.fh)?;
    let mut range = range(&wanted.lock)?;
    let owners = lock(&handle.node().locks.owners);
    let own = owners.iter().find(|owner| owner.id == wanted.owner).map(|owner| owner.fd.as_fd());
    // Who holds no locks asks through the handle, which holds none of this kind.
    sys::lock_range(own.unwrap_or(handle.as_fd()), libc::F_OFD_GETLK, &mut range)?;
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
    Ok(call.reply.put(0, &LockOut { lock: found }))
}

/// The owner that is in the way of nothing but others: it holds the lock. Processes of the host have no number in the guest.
fn holder<'a>(owners: &'a [Owner], asker: u64, held: &libc::flock) -> Option<&'a Owner> {
    owners.iter().filter(|owner| owner.id != asker).take(MAX_ASKED).find(|owner| {
        let mut range = libc::flock { l_type: libc::F_WRLCK as libc::c_short, l_pid: 0, ..*held };
        sys::lock_range(owner.fd.as_fd(), libc::F_OFD_GETLK, &mut range).is_ok()
            && c_int::from(range.l_type) == libc::F_UNLCK
    })
}

#[cfg(test)]
#[path = "locks_test.rs"]
mod tests;
