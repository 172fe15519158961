//! The mount system calls that take descriptors instead of paths, so that a symbolic link cannot redirect them:
//! open_tree(2), mount_setattr(2), fsopen(2), fsconfig(2), fsmount(2), fspick(2), move_mount(2).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;

use crate::{done, made};

const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;
const FSPICK_CLOEXEC: libc::c_uint = 1;
const FSPICK_EMPTY_PATH: libc::c_uint = 8;

/// `MOUNT_ATTR_*` of mount_setattr(2).
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// set-user-ID bits have no effect.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// Mask of the access-time setting; relatime is the value 0.
    pub const ATIME: u64 = 0x70;
    /// Access times are not kept.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always kept.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are not kept.
    pub const NODIRATIME: u64 = 0x80;
    /// IDs are mapped by a user namespace.
    pub const IDMAP: u64 = 0x10_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// A change to a mount: `struct mount_attr` of mount_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0.
    pub propagation: u64,
    userns_fd: u64,
}

impl MountAttributes {
    /// Makes a mount read-only.
    pub const READONLY: Self = Self::new(attr::RDONLY, 0);

    /// Changes the propagation only.
    pub const fn propagation(propagation: u64) -> Self {
        Self { set: 0, clear: 0, propagation, userns_fd: 0 }
    }

    /// Sets `set` after clearing `clear`.
    pub const fn new(set: u64, clear: u64) -> Self {
        Self { set, clear, propagation: 0, userns_fd: 0 }
    }
}

/// A detached copy of the mount at the file or directory `at`, with the mounts below it if `recursive`.
///
/// # Errors
/// Those of open_tree(2).
pub fn clone_tree(at: impl AsFd, recursive: bool) -> Result<OwnedFd, Errno> {
    open_tree(at.as_fd().as_raw_fd(), c"", libc::AT_EMPTY_PATH, recursive)
}

/// A detached copy of the mount at `path`, with the mounts below it if `recursive`: of a symbolic link itself if `no_follow`,
/// and otherwise of what it leads to.
///
/// # Errors
/// Those of open_tree(2).
pub fn clone_tree_at(path: &Path, recursive: bool, no_follow: bool) -> Result<OwnedFd, Errno> {
    let flags = if no_follow { libc::AT_SYMLINK_NOFOLLOW } else { 0 };
    path.with_nix_path(|path| open_tree(libc::AT_FDCWD, path, flags, recursive))?
}

fn open_tree(at: i32, path: &CStr, flags: i32, recursive: bool) -> Result<OwnedFd, Errno> {
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    let flags = OPEN_TREE_CLONE | (libc::O_CLOEXEC | flags | recursive) as libc::c_uint;
    // SAFETY: the path is NUL-terminated and outlives the call, which makes a descriptor.
    unsafe { made(libc::syscall(libc::SYS_open_tree, at, path.as_ptr(), flags)) }
}

/// A new file system with `options` in the form of mount(2), where a value in double quotes may contain commas; its mount is detached and has these `MOUNT_ATTR_*`.
///
/// # Errors
/// Those of fsopen(2), fsconfig(2) and fsmount(2).
pub fn new_file_system(fstype: &str, source: &str, options: &str, attributes: u64) -> Result<OwnedFd, Errno> {
    let c_string = |text: &str| CString::new(text).map_err(|_| Errno::EINVAL);
    let fstype = c_string(fstype)?;
    // SAFETY: the type is NUL-terminated and outlives the call, which makes a descriptor.
    let context = unsafe { made(libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC)) }?;
    let configure =
        |command, key: Option<&CStr>, value: Option<&CStr>| configure(&context, command, key, value);
    configure(FSCONFIG_SET_STRING, Some(c"source"), Some(&c_string(source)?))?;
    let mut is_quoted = false;
    let ends_option = |character: char| {
        is_quoted ^= character == '"';
        character == ',' && !is_quoted
    };
    for option in options.split(ends_option).filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some((key, value)) => {
                let value = c_string(value.trim_matches('"'))?;
                configure(FSCONFIG_SET_STRING, Some(&c_string(key)?), Some(&value))?;
            }
            None => configure(FSCONFIG_SET_FLAG, Some(&c_string(option)?), None)?,
        }
    }
    configure(FSCONFIG_CMD_CREATE, None, None)?;
    // SAFETY: the call takes a descriptor and integers, and makes a descriptor.
    unsafe { made(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes)) }
}

/// Makes the file system of a mount writable. A mount of it that is read-only stays read-only.
///
/// # Errors
/// Those of fspick(2) and fsconfig(2).
pub fn make_writable(mount: impl AsFd) -> Result<(), Errno> {
    let context = pick(mount)?;
    configure(&context, FSCONFIG_SET_FLAG, Some(c"rw"), None)?;
    configure(&context, FSCONFIG_CMD_RECONFIGURE, None, None)
}

/// Changes options of the file system of a mount, which is given by its root; other options stay.
///
/// # Errors
/// Those of fspick(2) and fsconfig(2).
pub fn reconfigure(mount: impl AsFd, options: &[(&str, &str)]) -> Result<(), Errno> {
    let context = pick(mount)?;
    for (key, value) in options {
        let [key, value] = [key, value].map(|text| CString::new(*text).map_err(|_| Errno::EINVAL));
        configure(&context, FSCONFIG_SET_STRING, Some(&key?), Some(&value?))?;
    }
    configure(&context, FSCONFIG_CMD_RECONFIGURE, None, None)
}

fn pick(mount: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
    let mount = mount.as_fd().as_raw_fd();
    // SAFETY: the path is NUL-terminated, and the call makes a descriptor.
    unsafe { made(libc::syscall(libc::SYS_fspick, mount, c"".as_ptr(), flags)) }
}

fn configure(
    context: &OwnedFd,
    command: libc::c_uint,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> Result<(), Errno> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: both are NUL-terminated strings that outlive the call, or null where the command takes none.
    done(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, pointer(key), pointer(value), 0)
    })
}

/// Mounts the detached `tree` on the file or directory `target`.
///
/// # Errors
/// Those of move_mount(2).
pub fn attach(tree: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    move_mount(tree.as_fd(), target.as_fd().as_raw_fd(), c"", MOVE_MOUNT_T_EMPTY_PATH)
}

/// Mounts the detached `tree` on `target`, a path.
///
/// # Errors
/// Those of move_mount(2).
pub fn attach_at(tree: impl AsFd, target: &Path) -> Result<(), Errno> {
    target.with_nix_path(|target| move_mount(tree.as_fd(), libc::AT_FDCWD, target, 0))?
}

fn move_mount(tree: BorrowedFd<'_>, at: i32, path: &CStr, flags: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: both paths are NUL-terminated strings that outlive the call.
    done(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            at,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | flags,
        )
    })
}

/// Changes the mount that `mount` is the root of, with all below it if `recursive`.
///
/// # Errors
/// Those of mount_setattr(2).
pub fn set_attributes(mount: impl AsFd, attributes: MountAttributes, recursive: bool) -> Result<(), Errno> {
    setattr(mount.as_fd().as_raw_fd(), c"", libc::AT_EMPTY_PATH, attributes, recursive)
}

/// As [`set_attributes`], for the topmost mount at an absolute path.
///
/// # Errors
/// Those of mount_setattr(2).
pub fn set_attributes_at(path: &CStr, attributes: MountAttributes, recursive: bool) -> Result<(), Errno> {
    setattr(libc::AT_FDCWD, path, 0, attributes, recursive)
}

/// Sets `MOUNT_ATTR_*` of a whole tree and makes its propagation private.
///
/// # Errors
/// Those of mount_setattr(2).
pub fn restrict(tree: impl AsFd, attributes: u64) -> Result<(), Errno> {
    let private = MountAttributes::propagation(libc::MS_PRIVATE);
    set_attributes(tree, MountAttributes { set: attributes, ..private }, true)
}

/// Maps the IDs of a detached mount as a user namespace does, with what is mounted below it if `recursive`.
///
/// # Errors
/// Those of mount_setattr(2): EINVAL where a file system does not support it.
pub fn map_ids(tree: impl AsFd, user_namespace: impl AsFd, recursive: bool) -> Result<(), Errno> {
    let userns_fd = user_namespace.as_fd().as_raw_fd() as u64;
    let attributes = MountAttributes { userns_fd, ..MountAttributes::new(attr::IDMAP, 0) };
    set_attributes(tree, attributes, recursive)
}

fn setattr(
    at: i32,
    path: &CStr,
    flags: i32,
    attributes: MountAttributes,
    recursive: bool,
) -> Result<(), Errno> {
    let flags = flags | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is NUL-terminated, and the size is that of the structure, which the kernel only reads.
    done(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })
}
