//! The system calls of the file server, each once, behind a safe signature.
//!
//! Calls to which the standard library refers weakly (statx, copy_file_range) are made without the C library: a static program
//! with link-time optimisation may be without its functions.
//!
//! Files are named by a descriptor and at most one component of a path. Where the kernel has no call that takes an O_PATH
//! descriptor, the file is named by that descriptor's number in `/proc/self/fd`, which is each thread's working directory
//! ([`super::thread`]).

use std::{
    ffi::{CStr, c_int, c_uint, c_void},
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

/// Upper bound of the error numbers that programs may see; a FUSE reply may not carry others.
const MAX_ERRNO: i32 = 512;

/// The error of a system call, or an error for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// The error of this number; EIO if programs may not see this number.
    pub const fn new(number: i32) -> Self {
        if number > 0 && number < MAX_ERRNO { Self(number) } else { Self(libc::EIO) }
    }

    /// Its number, which is positive.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The error of the system call that has just failed.
    pub fn last() -> Self {
        Self::new(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.number())
    }
}

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Errno>;

fn done(returned: c_int) -> Result<()> {
    if returned < 0 { Err(Errno::last()) } else { Ok(()) }
}

fn size(returned: isize) -> Result<usize> {
    usize::try_from(returned).map_err(|_| Errno::last())
}

fn owned(returned: c_int) -> Result<OwnedFd> {
    done(returned)?;
    // SAFETY: the kernel has just made it for this call, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(returned) })
}

/// A descriptor's number as a name in `/proc/self/fd`.
pub struct Number([u8; 12]);

impl Number {
    /// The name of this descriptor.
    pub fn of(fd: BorrowedFd<'_>) -> Self {
        let mut digits = [0; 12];
        // A valid descriptor is not negative, and ten digits hold every number.
        let mut rest = fd.as_raw_fd().unsigned_abs();
        let mut start = digits.len() - 1;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        digits.copy_within(start.., 0);
        Self(digits)
    }

    /// The name in the form for system calls.
    pub fn name(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// openat(2); the descriptor is closed at execve(2).
pub fn open_at(directory: BorrowedFd<'_>, name: &CStr, flags: c_int, mode: u32) -> Result<OwnedFd> {
    // SAFETY: the name is a string; nothing else is passed by pointer.
    owned(unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC, mode) })
}

/// Opens a name beneath the directory with O_PATH, without following a link.
pub fn open_path_at(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    open_at(directory, name, libc::O_PATH | libc::O_NOFOLLOW, 0)
}

/// Opens the file behind a descriptor once more. `fds` is `/proc/self/fd`. The file must not be a link.
pub fn reopen(fds: BorrowedFd<'_>, file: BorrowedFd<'_>, flags: c_int) -> Result<OwnedFd> {
    open_at(fds, Number::of(file).name(), flags & !libc::O_CREAT & !libc::O_NOFOLLOW, 0)
}

/// The fields that statx(2) is asked for.
pub const ATTRIBUTES: c_uint = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID;

fn statx(directory: RawFd, name: &CStr, flags: c_int) -> Result<libc::statx> {
    let mut buffer = MaybeUninit::<libc::statx>::uninit();
    let flags = flags | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    // SAFETY: the name is a string, and the kernel fills the structure.
    let returned = unsafe {
        libc::syscall(libc::SYS_statx, directory, name.as_ptr(), flags, ATTRIBUTES, buffer.as_mut_ptr())
    };
    // 0 or -1.
    done(returned as c_int)?;
    // SAFETY: it succeeded, so all of it is filled.
    Ok(unsafe { buffer.assume_init() })
}

/// statx(2) of a name beneath the directory, which is not followed if it is a link.
pub fn stat_at(directory: BorrowedFd<'_>, name: &CStr) -> Result<libc::statx> {
    statx(directory.as_raw_fd(), name, 0)
}

/// statx(2) of a descriptor's file.
pub fn stat(file: BorrowedFd<'_>) -> Result<libc::statx> {
    statx(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

/// fstatfs(2).
pub fn stat_fs(file: BorrowedFd<'_>) -> Result<libc::statfs> {
    let mut buffer = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the kernel fills the structure.
    done(unsafe { libc::fstatfs(file.as_raw_fd(), buffer.as_mut_ptr()) })?;
    // SAFETY: it succeeded, so all of it is filled.
    Ok(unsafe { buffer.assume_init() })
}

/// fchownat(2); -1 keeps an id.
pub fn change_owner(file: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: the name is a string.
    done(unsafe { libc::fchownat(file.as_raw_fd(), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) })
}

/// chmod(2) of the file behind a descriptor of any kind.
pub fn change_mode(file: BorrowedFd<'_>, mode: u32) -> Result<()> {
    let number = Number::of(file);
    // SAFETY: the name is a string.
    done(unsafe { libc::fchmodat(libc::AT_FDCWD, number.name().as_ptr(), mode, 0) })
}

/// utimensat(2) of the file behind a descriptor of any kind.
pub fn change_times(file: BorrowedFd<'_>, times: &[libc::timespec; 2]) -> Result<()> {
    let number = Number::of(file);
    // SAFETY: the name is a string, and there are two times.
    done(unsafe { libc::utimensat(libc::AT_FDCWD, number.name().as_ptr(), times.as_ptr(), 0) })
}

/// truncate(2) of the file behind a descriptor of any kind.
pub fn truncate(file: BorrowedFd<'_>, length: i64) -> Result<()> {
    let number = Number::of(file);
    // SAFETY: the name is a string.
    done(unsafe { libc::truncate(number.name().as_ptr(), length) })
}

/// ftruncate(2).
pub fn truncate_open(file: BorrowedFd<'_>, length: i64) -> Result<()> {
    // SAFETY: no pointer is passed.
    done(unsafe { libc::ftruncate(file.as_raw_fd(), length) })
}

/// readlinkat(2) of the link itself.
pub fn read_link(link: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the name is a string, and the kernel writes within the buffer.
    size(unsafe {
        libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    })
}

/// mkdirat(2).
pub fn make_directory(directory: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: the name is a string.
    done(unsafe { libc::mkdirat(directory.as_raw_fd(), name.as_ptr(), mode) })
}

/// mknodat(2).
pub fn make_node(directory: BorrowedFd<'_>, name: &CStr, mode: u32, device: libc::dev_t) -> Result<()> {
    // SAFETY: the name is a string.
    done(unsafe { libc::mknodat(directory.as_raw_fd(), name.as_ptr(), mode, device) })
}

/// symlinkat(2).
pub fn make_link(target: &CStr, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: both are strings.
    done(unsafe { libc::symlinkat(target.as_ptr(), directory.as_raw_fd(), name.as_ptr()) })
}

/// linkat(2): one more name for the file behind a descriptor of any kind, also for a link.
pub fn link(file: BorrowedFd<'_>, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let number = Number::of(file);
    // What is followed is the entry of /proc/self/fd, never the file behind it.
    let flags = libc::AT_SYMLINK_FOLLOW;
    // SAFETY: both names are strings.
    done(unsafe {
        libc::linkat(libc::AT_FDCWD, number.name().as_ptr(), directory.as_raw_fd(), name.as_ptr(), flags)
    })
}

/// unlinkat(2), with AT_REMOVEDIR for a directory.
pub fn unlink(directory: BorrowedFd<'_>, name: &CStr, flags: c_int) -> Result<()> {
    // SAFETY: the name is a string.
    done(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), flags) })
}

/// renameat2(2).
pub fn rename(from: (BorrowedFd<'_>, &CStr), to: (BorrowedFd<'_>, &CStr), flags: c_uint) -> Result<()> {
    // SAFETY: both names are strings.
    done(unsafe {
        libc::renameat2(from.0.as_raw_fd(), from.1.as_ptr(), to.0.as_raw_fd(), to.1.as_ptr(), flags)
    })
}

/// getdents64(2): returns the number of bytes of records.
pub fn read_directory(directory: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes within the buffer.
    let length = unsafe {
        libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
    };
    usize::try_from(length).map_err(|_| Errno::last())
}

/// lseek(2).
pub fn seek(file: BorrowedFd<'_>, offset: i64, whence: c_int) -> Result<i64> {
    // SAFETY: no pointer is passed.
    let position = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    if position < 0 { Err(Errno::last()) } else { Ok(position) }
}

/// Memory that others may change while the kernel reads or fills it.
#[derive(Clone, Copy)]
pub struct Shared {
    start: *mut u8,
    length: usize,
}

impl Shared {
    /// The `length` bytes from `start`.
    ///
    /// # Safety
    /// They must be mapped, readable and writable, as long as this is used.
    pub unsafe fn new(start: *mut u8, length: usize) -> Self {
        Self { start, length }
    }

    fn iovec(self) -> libc::iovec {
        libc::iovec { iov_base: self.start.cast::<c_void>(), iov_len: self.length }
    }
}

/// preadv(2) straight into shared memory.
pub fn read(file: BorrowedFd<'_>, to: Shared, offset: i64) -> Result<usize> {
    let vector = to.iovec();
    // SAFETY: the memory is mapped (see Shared), and it may hold anything.
    size(unsafe { libc::preadv(file.as_raw_fd(), &raw const vector, 1, offset) })
}

/// pwritev2(2) straight from shared memory.
pub fn write(file: BorrowedFd<'_>, from: Shared, offset: i64, flags: c_int) -> Result<usize> {
    let vector = from.iovec();
    // SAFETY: the memory is mapped (see Shared), and all its contents are good.
    size(unsafe { libc::pwritev2(file.as_raw_fd(), &raw const vector, 1, offset, flags) })
}

/// fallocate(2).
pub fn allocate(file: BorrowedFd<'_>, mode: c_int, offset: i64, length: i64) -> Result<()> {
    // SAFETY: no pointer is passed.
    done(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) })
}

/// copy_file_range(2).
pub fn copy(from: (BorrowedFd<'_>, i64), to: (BorrowedFd<'_>, i64), length: usize) -> Result<usize> {
    let (mut from_offset, mut to_offset) = (from.1, to.1);
    // SAFETY: both offsets outlive the call.
    size(unsafe {
        libc::syscall(
            libc::SYS_copy_file_range,
            from.0.as_raw_fd(),
            &raw mut from_offset,
            to.0.as_raw_fd(),
            &raw mut to_offset,
            length,
            0,
        ) as isize
    })
}

/// fsync(2), or fdatasync(2) if only data matter.
pub fn sync(file: BorrowedFd<'_>, only_data: bool) -> Result<()> {
    let fd = file.as_raw_fd();
    // SAFETY: no pointer is passed.
    done(unsafe { if only_data { libc::fdatasync(fd) } else { libc::fsync(fd) } })
}

/// syncfs(2).
pub fn sync_fs(file: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no pointer is passed.
    done(unsafe { libc::syncfs(file.as_raw_fd()) })
}

/// Closes a copy of the descriptor, which lets a network file system report what it could not write.
pub fn flush(file: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no pointer is passed, and the copy is closed only here.
    unsafe {
        let copy = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 0);
        done(copy)?;
        done(libc::close(copy))
    }
}

/// flock(2).
pub fn lock_file(file: BorrowedFd<'_>, operation: c_int) -> Result<()> {
    // SAFETY: no pointer is passed.
    done(unsafe { libc::flock(file.as_raw_fd(), operation) })
}

/// fcntl(2) for locks of an open file description: F_OFD_SETLK, F_OFD_GETLK.
pub fn lock_range(file: BorrowedFd<'_>, command: c_int, lock: &mut libc::flock) -> Result<()> {
    // SAFETY: the structure outlives the call.
    done(unsafe { libc::fcntl(file.as_raw_fd(), command, ptr::from_mut(lock)) })
}

/// getxattr(2) of the file behind a descriptor of any kind; an empty buffer asks for the size.
pub fn get_xattr(file: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> Result<usize> {
    let number = Number::of(file);
    // SAFETY: both names are strings, and the kernel writes within the buffer.
    size(unsafe {
        libc::getxattr(number.name().as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    })
}

/// listxattr(2) of the file behind a descriptor of any kind.
pub fn list_xattrs(file: BorrowedFd<'_>, list: &mut [u8]) -> Result<usize> {
    let number = Number::of(file);
    // SAFETY: the name is a string, and the kernel writes within the buffer.
    size(unsafe { libc::listxattr(number.name().as_ptr(), list.as_mut_ptr().cast(), list.len()) })
}

/// setxattr(2) of the file behind a descriptor of any kind.
pub fn set_xattr(file: BorrowedFd<'_>, name: &CStr, value: &[u8], flags: c_int) -> Result<()> {
    let number = Number::of(file);
    // SAFETY: both names are strings, and the kernel reads within the value.
    done(unsafe {
        libc::setxattr(number.name().as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
    })
}

/// removexattr(2) of the file behind a descriptor of any kind.
pub fn remove_xattr(file: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let number = Number::of(file);
    // SAFETY: both names are strings.
    done(unsafe { libc::removexattr(number.name().as_ptr(), name.as_ptr()) })
}
