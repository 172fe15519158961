//! Landlock (landlock(7)): a thread takes rights away from itself, as far as the host's kernel knows them. What is open stays
//! usable.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;

use crate::{done, made};

// include/uapi/linux/landlock.h
const CREATE_RULESET_VERSION: libc::c_uint = 1;
const RULE_PATH_BENEATH: libc::c_uint = 1;
const RULE_NET_PORT: libc::c_uint = 2;

/// `LANDLOCK_ACCESS_FS_*`.
pub mod access {
    /// To write to a file.
    pub const WRITE_FILE: u64 = 1 << 1;
    /// To read a file.
    pub const READ_FILE: u64 = 1 << 2;
    /// To list a directory.
    pub const READ_DIR: u64 = 1 << 3;
    /// To remove a file.
    pub const REMOVE_FILE: u64 = 1 << 5;
    /// To make a regular file.
    pub const MAKE_REG: u64 = 1 << 8;
    /// To truncate a file.
    pub const TRUNCATE: u64 = 1 << 14;
    /// ioctl(2) on a device.
    pub const IOCTL_DEV: u64 = 1 << 15;
}

/// The rights to files of each version of the interface, from 1 on: the first thirteen, to link and rename between
/// directories, to truncate; version 4 is about networks; ioctl(2).
const FILES: [u64; 5] = [0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff];

/// The first version with rights to bind and to connect TCP sockets, and the bits of these rights.
const TCP: (u32, u64) = (4, 0x3);

/// The right to connect TCP sockets.
const CONNECT_TCP: u64 = 1 << 1;

/// The first version that can deny abstract UNIX sockets and signals of others (`LANDLOCK_SCOPE_*`), and the bits for
/// that.
const SCOPES: (u32, u64) = (6, 0x3);

/// `struct landlock_ruleset_attr` as of version 6; an older kernel accepts it if the fields that it does not know are
/// zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Ruleset {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

impl Ruleset {
    /// Everything that a kernel of this version can deny.
    fn all(version: u32) -> Self {
        let files = match version as usize {
            0 => 0,
            version => FILES[version.min(FILES.len()) - 1],
        };
        let since = |(first, rights): (u32, u64)| if version >= first { rights } else { 0 };
        Self { handled_access_fs: files, handled_access_net: since(TCP), scoped: since(SCOPES) }
    }
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: RawFd,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct NetPort {
    allowed_access: u64,
    port: u64,
}

/// What stays allowed beneath a directory, or on a file.
#[derive(Clone, Copy, Debug)]
pub struct Beneath<'a> {
    /// The directory or the file.
    pub file: BorrowedFd<'a>,
    /// The rights: [`access`].
    pub rights: u64,
}

/// The version of the interface.
///
/// # Errors
/// ENOSYS where the kernel is built without it, EOPNOTSUPP where it was booted without it.
pub fn version() -> Result<u32, Errno> {
    let none = std::ptr::null::<Ruleset>();
    // SAFETY: with this flag there is neither a ruleset nor its size.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, CREATE_RULESET_VERSION) };
    // Versions are small numbers.
    Errno::result(version).map(|version| version as u32)
}

/// Restricts the calling thread and all threads and processes that it starts: they have no rights to files but these,
/// cannot bind TCP sockets, can connect them to `ports` only, and reach neither abstract UNIX sockets of others nor
/// other processes by signals. The thread needs no_new_privs. If the kernel has no Landlock, nothing happens.
///
/// # Errors
/// The kernel has Landlock and refuses.
pub fn restrict(allowed: &[Beneath<'_>], ports: &[u16]) -> Result<(), Errno> {
    let Ok(version) = version() else { return Ok(()) };
    let all = Ruleset::all(version);
    // SAFETY: the structure has the size that is passed with it, and the call makes a descriptor.
    let rules = unsafe {
        made(libc::syscall(libc::SYS_landlock_create_ruleset, &raw const all, size_of::<Ruleset>(), 0))
    }?;
    for Beneath { file, rights } in allowed {
        let beneath =
            PathBeneath { allowed_access: rights & all.handled_access_fs, parent_fd: file.as_raw_fd() };
        // SAFETY: the structure is that of this type of rule.
        unsafe { add_rule(&rules, RULE_PATH_BENEATH, &beneath) }?;
    }
    let connect = all.handled_access_net & CONNECT_TCP;
    for port in ports.iter().filter(|_| connect != 0) {
        let port = NetPort { allowed_access: connect, port: (*port).into() };
        // SAFETY: as above.
        unsafe { add_rule(&rules, RULE_NET_PORT, &port) }?;
    }
    // SAFETY: the call takes a descriptor and flags.
    done(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) })
}

/// # Safety
/// `rule` must be the structure of its `kind`.
unsafe fn add_rule<T>(rules: &OwnedFd, kind: libc::c_uint, rule: &T) -> Result<(), Errno> {
    let (rules, rule) = (rules.as_raw_fd(), std::ptr::from_ref(rule));
    // SAFETY: the caller's promise.
    done(unsafe { libc::syscall(libc::SYS_landlock_add_rule, rules, kind, rule, 0) })
}

#[cfg(test)]
#[path = "landlock_test.rs"]
mod tests;
