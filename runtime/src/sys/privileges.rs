//! Giving up privileges for good.

use std::io;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `_LINUX_CAPABILITY_VERSION_3`, which takes two 32-bit halves of the three sets.
const VERSION: u32 = 0x2008_0522;

/// The highest number of a capability that a kernel may have.
const LAST: u32 = 63;

/// CAP_NET_ADMIN, as [`keep_only`] takes it.
pub const NET_ADMIN: u64 = 1 << 12;

/// Has nothing that the calling thread executes bring it privileges.
///
/// # Errors
/// prctl(2)'s.
pub fn forbid_new() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// Leaves the calling thread no capability but these, which it may not get back, nor anything by executing a program. Its
/// inheritable and ambient sets are empty.
///
/// # Errors
/// capset(2)'s and prctl(2)'s.
pub fn keep_only(capabilities: u64) -> io::Result<()> {
    forbid_new()?;
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)?;
    for capability in (0..=LAST).filter(|capability| capabilities & (1 << capability) == 0) {
        match prctl(libc::PR_CAPBSET_DROP, capability.into(), 0) {
            // The kernel knows no more.
            Err(cause) if cause.raw_os_error() == Some(libc::EINVAL) => break,
            // It is a caller's without CAP_SETPCAP, and bounds what is executed, which is nothing.
            Err(cause) if cause.raw_os_error() == Some(libc::EPERM) => break,
            dropped => dropped?,
        }
    }
    let (low, high) = (capabilities as u32, (capabilities >> 32) as u32);
    let header = Header { version: VERSION, pid: 0 };
    // Effective, permitted and inheritable, first the lower halves.
    let sets = [low, low, 0, high, high, 0];
    // SAFETY: header and sets have the layout of this version.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn prctl(option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options above take integers.
    if unsafe { libc::prctl(option, first, second, none, none) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
