//! File descriptors by number: closing all but given ones, and duplicating to given numbers.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Closes every descriptor from `first` on but those in `keep`.
///
/// # Errors
/// Those of close_range(2).
///
/// # Safety
/// Whatever owns one of the others in this process is neither used nor dropped any more, as after a fork whose child never
/// returns to what its parent was doing.
pub unsafe fn close_all_but(first: RawFd, keep: &[RawFd]) -> Result<(), Errno> {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|kept| *kept >= first).collect();
    #[cfg(feature = "takeover")]
    keep.push(stockade_takeover::REPORT);
    keep.sort_unstable();
    let mut first = first;
    for kept in keep {
        if first < kept {
            // SAFETY: the caller's promise.
            unsafe { close_range(first, kept as libc::c_uint - 1) }?;
        }
        first = first.max(kept.saturating_add(1));
    }
    // SAFETY: the caller's promise.
    unsafe { close_range(first, libc::c_uint::MAX) }
}

/// # Safety
/// As for [`close_all_but`].
unsafe fn close_range(first: RawFd, last: libc::c_uint) -> Result<(), Errno> {
    // Numbers of descriptors are not negative.
    // SAFETY: the caller's promise.
    Errno::result(unsafe { libc::close_range(first as libc::c_uint, last, 0) }).map(drop)
}

/// Makes `from` also the descriptor number `to`, without close-on-exec.
///
/// # Errors
/// Those of dup2(2).
///
/// # Safety
/// Nothing in this process owns the number `to`, or what owns it is neither used nor dropped any more.
pub unsafe fn duplicate_to(from: impl AsFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    Errno::result(unsafe { libc::dup2(from.as_fd().as_raw_fd(), to) }).map(drop)
}

/// A duplicate of `fd` with a number of at least `lowest`, closed on exec.
///
/// # Errors
/// Those of fcntl(2).
pub fn duplicate_above(fd: impl AsFd, lowest: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer and makes a descriptor.
    let duplicate = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) };
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    Errno::result(duplicate).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}
