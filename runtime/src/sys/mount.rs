//! The descriptor-based mount API: open_tree(2), mount_setattr(2), fsopen(2), fsmount(2), move_mount(2).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::NixPath;

/// `MOUNT_ATTR_*` of a cloned tree.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// No set-user-ID.
    pub const NOSUID: u64 = 0x2;
    /// No device nodes.
    pub const NODEV: u64 = 0x4;
    /// No execution.
    pub const NOEXEC: u64 = 0x8;
    /// IDs are mapped.
    pub const IDMAP: u64 = 0x10_0000;
}

const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A detached copy of the mount at `path`, with what is mounted below it if `recursive`. Of a symbolic link, what it leads to.
///
/// # Errors
/// open_tree(2)'s.
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    clone_tree_with(path, recursive, 0)
}

/// The same, but of a symbolic link itself.
///
/// # Errors
/// open_tree(2)'s.
pub fn clone_tree_no_follow(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    clone_tree_with(path, recursive, libc::AT_SYMLINK_NOFOLLOW as libc::c_uint)
}

fn clone_tree_with(path: &Path, recursive: bool, flags: libc::c_uint) -> io::Result<OwnedFd> {
    let mut flags = flags | OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    path.with_nix_path(|path| {
        // SAFETY: `path` is a NUL-terminated string for the duration of the call.
        descriptor(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
    })?
}

/// Sets mount attributes of a whole tree and makes its propagation private.
///
/// # Errors
/// mount_setattr(2)'s.
pub fn restrict(tree: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    let attr = MountAttr { attr_set: attributes, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    set_attributes(tree, &attr, true)
}

/// Maps the IDs of a detached mount as a user namespace does, with what is mounted below it if `recursive`.
///
/// # Errors
/// mount_setattr(2)'s: EINVAL where a file system does not support it.
pub fn map_ids(tree: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let userns_fd = user_namespace.as_raw_fd() as u64;
    let attr = MountAttr { attr_set: attr::IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    set_attributes(tree, &attr, recursive)
}

fn set_attributes(tree: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> io::Result<()> {
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, and `attr` has the size that is passed with it.
    done(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
}

/// Attaches a detached mount on `target`, a path.
///
/// # Errors
/// move_mount(2)'s.
pub fn attach(tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    target.with_nix_path(|target| {
        // SAFETY: both paths are NUL-terminated strings for the duration of the call.
        done(unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                tree.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                target.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            )
        })
    })?
}

/// Attaches a detached mount on the directory that `target` is open on.
///
/// # Errors
/// move_mount(2)'s.
pub fn attach_at(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both paths are empty C strings; the flags say that the descriptors stand for them.
    done(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
}

/// Makes one mount read-only, and not what is mounted below it.
///
/// # Errors
/// mount_setattr(2)'s.
pub fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr { attr_set: attr::RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    set_attributes(mount, &attr, false)
}

/// A detached procfs, read-only, that shows processes alone; before Linux 5.8, one that shows all the rest too.
///
/// # Errors
/// Those of [`new_file_system`].
pub fn own_processes() -> io::Result<OwnedFd> {
    const HARMLESS: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    match new_file_system(c"proc", &[(c"subset", c"pid")], HARMLESS) {
        Err(cause) if cause.raw_os_error() == Some(libc::EINVAL) => {
            tracing::debug!(
                "the host's kernel has no procfs of processes alone: it is read-only all the same"
            );
            new_file_system(c"proc", &[], HARMLESS)
        }
        mounted => mounted,
    }
}

/// A detached mount of a new instance of a file system that needs no source, such as `proc`, with these options.
///
/// # Errors
/// fsopen(2)'s, fsconfig(2)'s or fsmount(2)'s.
pub fn new_file_system(fstype: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> io::Result<OwnedFd> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: `fstype` is a C string.
    let context = descriptor(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) })?;
    for (key, value) in options {
        // SAFETY: this command takes two C strings.
        done(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                FSCONFIG_SET_STRING,
                key.as_ptr(),
                value.as_ptr(),
                0,
            )
        })?;
    }
    // SAFETY: this command takes no key and no value.
    done(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0)
    })?;
    // SAFETY: fsmount takes a descriptor and integers.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
}
