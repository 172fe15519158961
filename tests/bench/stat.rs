//! The container's part of the file benchmark: asks the file server for a file's attributes so many times.

use std::ffi::CString;

fn main() {
    let mut words = std::env::args().skip(1);
    let times: u32 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let path = CString::new(words.next().unwrap_or_default()).unwrap_or_default();
    for _ in 0..times {
        // SAFETY: all zeroes are a valid statx, and the kernel fills it.
        let mut stat = unsafe { std::mem::zeroed::<libc::statx>() };
        // Without this flag the guest's kernel would answer from its cache.
        let flags = libc::AT_STATX_FORCE_SYNC;
        // SAFETY: the path ends with NUL, and the structure is this function's.
        let done = unsafe {
            libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, libc::STATX_BASIC_STATS, &raw mut stat)
        };
        assert_eq!(done, 0, "statx");
    }
}
