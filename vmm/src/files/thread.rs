//! The state that a server thread keeps between requests: its buffers, and its present identity.
//!
//! Linux keeps IDs, capabilities, umask and working directory for each thread unless threads are told to share them. A
//! request changes them only if it needs others than the request before, so few requests do.
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

/// Largest part of a request that is copied, in bytes: the longest argument is the value of an extended attribute.
pub const REQUEST_BYTES: usize = 68 << 10;

/// Size of the buffer for extended attributes and their lists, and for raw directory entries, in bytes.
pub const SCRATCH_BYTES: usize = 64 << 10;

const FSETID: u64 = Capability::Fsetid.bit();

/// The state of one thread; the thread that uses it must make it.
pub struct ThreadState {
    /// The request in private memory.
    pub(super) request: Box<[u8]>,
    /// A buffer for an operation's own use.
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

    /// Makes files that the thread makes from now on belong to this uid and gid.
    pub(super) fn become_caller(&mut self, uid: u32, gid: u32) -> Result<()> {
        // The group is set first, but the order does not matter, because a change of IDs does not change capabilities.
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

    /// Sets the umask for files that the thread makes from now on. A default ACL of the directory replaces it.
    pub(super) fn set_umask(&mut self, umask: u32) {
        let umask = umask & 0o777;
        if self.umask != Some(umask) {
            // SAFETY: it takes a number and never fails.
            unsafe { libc::umask(umask) };
            self.umask = Some(umask);
        }
    }

    /// Sets whether changes to a file keep its setuid and setgid bits, which takes CAP_FSETID: the thread gets or drops
    /// it.
    pub(super) fn keep_set_ids(&mut self, keep: bool) -> Result<()> {
        if self.has_fsetid == keep {
            return Ok(());
        }
        // If the server never had the capability, the bits are not kept.
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

/// setfsuid(2) or setfsgid(2), which do not report failures; a second call returns the present ID.
fn set_id(call: libc::c_long, id: u32) -> Result<()> {
    if id == u32::MAX {
        return Err(Errno::new(libc::EINVAL));
    }
    // SAFETY: it takes a number and never fails.
    unsafe { libc::syscall(call, id) };
    // SAFETY: as above; -1 is nobody's id.
    let current = unsafe { libc::syscall(call, u32::MAX) };
    // This user namespace does not have the ID.
    if current as u32 == id { Ok(()) } else { Err(Errno::new(libc::EOVERFLOW)) }
}

#[cfg(test)]
#[path = "thread_test.rs"]
mod tests;
