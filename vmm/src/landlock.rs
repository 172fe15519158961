//! Landlock (landlock(7)): a thread gives up all access to file systems, TCP ports, others' abstract UNIX sockets and
//! processes, as far as the host's kernel knows how. What is open already stays usable.

use std::{io, ptr};

/// Asks for the kernel's ABI version.
const CREATE_RULESET_VERSION: u32 = 1;

/// `struct landlock_ruleset_attr` as of ABI 6; an older kernel takes it where it is zero beyond what that knows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ruleset {
    file_system: u64,
    network: u64,
    scoped: u64,
}

impl Ruleset {
    /// Everything that a kernel of this ABI can deny.
    fn all(abi: i32) -> Self {
        // LANDLOCK_ACCESS_FS_*: the first thirteen, then REFER, TRUNCATE and IOCTL_DEV.
        let file_system = match abi {
            ..=0 => 0,
            1 => 13,
            2 => 14,
            3..=4 => 15,
            _ => 16,
        };
        Self {
            file_system: (1 << file_system) - 1,
            // LANDLOCK_ACCESS_NET_BIND_TCP and _CONNECT_TCP.
            network: if abi >= 4 { 0b11 } else { 0 },
            // LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and _SIGNAL.
            scoped: if abi >= 6 { 0b11 } else { 0 },
        }
    }
}

/// Denies it all to this thread and those that it starts, if the kernel has Landlock. The thread has no new privileges.
///
/// # Errors
/// The kernel has Landlock and refuses.
pub fn deny_all() -> io::Result<()> {
    let none = ptr::null::<Ruleset>();
    // SAFETY: without a ruleset the call only tells the version.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, CREATE_RULESET_VERSION) };
    if abi < 1 {
        // The kernel is built or was booted without it.
        return Ok(());
    }
    let ruleset = Ruleset::all(i32::try_from(abi).unwrap_or(i32::MAX));
    // SAFETY: the ruleset outlives the call, and its size is passed with it.
    let descriptor = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, size_of::<Ruleset>(), 0)
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes a descriptor and a number.
    let restricted = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, descriptor, 0) };
    let outcome = if restricted < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: the descriptor was made above, and nobody else has it.
    unsafe { libc::close(descriptor as libc::c_int) };
    outcome
}

#[cfg(test)]
#[path = "landlock_test.rs"]
mod tests;
