//! Single files of the host that are mounted, and the user database of an image. Engines complete them between `create` and `start`, and
//! later: podman writes the name servers into resolv.conf then. The guest's kernel believes for a while what it has seen of them; who
//! opens one meanwhile would read the new file up to the size of the old one.

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd},
};

/// Has the kernel ask the host for the file's size. What cannot be asked for now is asked for when it is read.
pub fn look_again(file: &impl AsFd) {
    let mut found = MaybeUninit::<libc::statx>::uninit();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_FORCE_SYNC;
    let file = file.as_fd().as_raw_fd();
    // SAFETY: the path is NUL-terminated, and the kernel writes one statx, for which there is room.
    let _ = unsafe { libc::statx(file, c"".as_ptr(), flags, libc::STATX_SIZE, found.as_mut_ptr()) };
}
