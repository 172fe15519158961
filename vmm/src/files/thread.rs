//! What a server thread carries from request to request: its buffers, and the identity that it has at the moment.
//!
//! Linux keeps ids, capabilities, umask and working directory for each thread where nobody asks for the opposite. They
//! are changed by a request that needs others than the one before left, and so by few.
//!
//! The thread's capabilities must survive a file system uid that is not 0: the process has set SECBIT_NO_SETUID_FIXUP
//! before it starts the thread. It has no supplementary groups, because a setgid bit goes when the caller is not in the
//! file's group.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use stockade_sys::capabilities::{Capability, Sets};

use super::sys::{Errno, Result};

/// Most bytes of a request that are looked at: the longest argument is the value of an extended attribute.
pub const REQUEST_BYTES: usize = 68 << 10;

/// Extended attributes and their lists, and raw directory entries.
pub const SCRATCH_BYTES: usize = 64 << 10;

const FSETID: u64 = Capability::Fsetid.bit();

/// One thread's; it must be made by the thread that uses it.
pub struct ThreadState {
    /// The request in private memory.
    pub(super) request: Box<[u8]>,
    /// For an operation's own use.
    pub(super) scratch: Box<[u8]>,
    capabilities: Sets,
    has_fsetid: bool,
    uid: Option<u32>,
    gid: Option<u32>,
    umask: Option<u32>,
    is_in_fds: bool,
}

impl ThreadState {
    /// Gives the calling thread a umask and a working directory of its own.
    ///
    /// # Errors
    /// unshare(2) or capget(2) is not allowed.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed, and memory is not unshared.
        if unsafe { libc::unshare(libc::CLONE_FS) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let capabilities = Sets::get()?;
        Ok(Self {
            // Zeroed pages that nothing is written to take no memory.
            request: vec![0; REQUEST_BYTES].into_boxed_slice(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            has_fsetid: capabilities.effective & FSETID != 0,
            capabilities,
            uid: None,
            gid: None,
            umask: None,
            is_in_fds: false,
        })
    }

    /// What the thread makes from now on belongs to this uid and gid.
    pub(super) fn become_caller(&mut self, uid: u32, gid: u32) -> Result<()> {
        // First the group: as long as ids do not take capabilities along, the order is free.
        if self.gid != Some(gid) {
            self.gid = None;
            set_id(libc::SYS_setfsgid, gid)?;
            self.gid = Some(gid);
        }
        if self.uid != Some(uid) {
            self.uid = None;
            set_id(libc::SYS_setfsuid, uid)?;
            self.uid = Some(uid);
        }
        Ok(())
    }

    /// The umask of what the thread makes from now on. A default ACL of the directory takes its place.
    pub(super) fn set_umask(&mut self, umask: u32) {
        let umask = umask & 0o777;
        if self.umask != Some(umask) {
            // SAFETY: it takes a number and never fails.
            unsafe { libc::umask(umask) };
            self.umask = Some(umask);
        }
    }

    /// Whether changes to a file keep its setuid and setgid bits: only with CAP_FSETID, which the thread then has.
    pub(super) fn keep_set_ids(&mut self, keep: bool) -> Result<()> {
        if self.has_fsetid == keep {
            return Ok(());
        }
        // Where the server never had it, nothing is kept.
        let effective = self.capabilities.effective & if keep { u64::MAX } else { !FSETID };
        Sets { effective, ..self.capabilities }.set().map_err(|errno| Errno::new(errno as i32))?;
        self.has_fsetid = keep;
        Ok(())
    }

    /// Makes `fds`, `/proc/self/fd`, the working directory, so that a descriptor's number is a name.
    pub(super) fn enter(&mut self, fds: BorrowedFd<'_>) -> Result<()> {
        if !self.is_in_fds {
            // SAFETY: no pointer is passed.
            if unsafe { libc::fchdir(fds.as_raw_fd()) } < 0 {
                return Err(Errno::last());
            }
            self.is_in_fds = true;
        }
        Ok(())
    }
}

/// setfsuid(2) or setfsgid(2), which do not tell whether they succeeded; a second call tells what the id is.
fn set_id(call: libc::c_long, id: u32) -> Result<()> {
    if id == u32::MAX {
        return Err(Errno::new(libc::EINVAL));
    }
    // SAFETY: it takes a number and never fails.
    unsafe { libc::syscall(call, id) };
    // SAFETY: as above; -1 is nobody's id.
    let current = unsafe { libc::syscall(call, u32::MAX) };
    // An id that this user namespace does not have.
    if current as u32 == id { Ok(()) } else { Err(Errno::new(libc::EOVERFLOW)) }
}

#[cfg(test)]
#[path = "thread_test.rs"]
mod tests;
