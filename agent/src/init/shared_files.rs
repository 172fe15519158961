//! Single files of the host that are mounted. Engines complete them between `create` and `start`: podman writes the name
//! servers into resolv.conf then. The guest's kernel has looked at them when it mounted them, and believes what it has seen for
//! a while; a program that starts meanwhile would read the new file up to the size of the old one.

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd},
};

/// Has the kernel ask the host for the size of each. What cannot be asked for now is asked for when it is read.
pub fn look_again(files: &[OwnedFd]) {
    for file in files {
        let mut found = MaybeUninit::<libc::statx>::uninit();
        let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_FORCE_SYNC;
        // SAFETY: the path is NUL-terminated, and the kernel writes one statx, for which there is room.
        let _ = unsafe {
            libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, libc::STATX_SIZE, found.as_mut_ptr())
        };
    }
}
