//! Locks that the host grants ([`super::Limits::host_locks`]).
//!
//! flock(2) belongs to an open file, which is a handle here and an open file of the host, so the handle's descriptor takes the
//! lock. POSIX locks are in [`super::range_locks`], until FLUSH. The server takes what is free and never waits.

use std::{
    ffi::c_int,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    abi::{LOCK_FLOCK, LockIn, LockOut},
    call::{Call, Place},
    nodes::Node,
    reply::Outcome,
    request::refuse,
    sys::{self, Result},
};

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
        let node = handle.node();
        node.locks.set(&wanted, || Ok((share.take_descriptor()?, open(call.server.fds(), node)?)))?;
    }
    Ok(0)
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
    let found = handle.node().locks.find(&wanted, handle.as_fd())?;
    Ok(call.reply.put(0, &LockOut { lock: found }))
}

#[cfg(test)]
#[path = "locks_test.rs"]
mod tests;
