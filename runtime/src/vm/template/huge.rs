//! Huge pages for a template's RAM, so that a clone gets at two MiB of its kernel's text with one exit and not with 512.
//!
//! A tmpfs has small pages unless it is mounted otherwise; Linux 6.1 and later gather them when they are told to. It is advice: where the
//! host does not take it, the pages stay small.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::{io, ptr};

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Gathers all pages of huge pages' size that have no hole. One with holes would take more memory than before.
pub fn gather(ram: &File) {
    let blocks = match ram.metadata() {
        Ok(meta) => meta.len() as usize / HUGE,
        Err(error) => return tracing::debug!("the template's RAM stays in small pages: {error}"),
    };
    let mut gathered = 0;
    for offset in (0..blocks).map(|block| block * HUGE).filter(|offset| is_full(ram, *offset)) {
        match collapse(ram, offset) {
            Ok(()) => gathered += 1,
            Err(error) => {
                tracing::debug!("the template's RAM stays in small pages from byte {offset} on: {error}");
                break;
            }
        }
    }
    tracing::debug!("{gathered} of {blocks} huge pages of the template's RAM");
}

/// Whether there is no hole in a block.
fn is_full(ram: &File, offset: usize) -> bool {
    // SAFETY: lseek takes a descriptor and numbers. Nobody reads or writes at this descriptor's position.
    let hole = unsafe { libc::lseek(ram.as_raw_fd(), offset as libc::off_t, libc::SEEK_HOLE) };
    hole >= (offset + HUGE) as libc::off_t
}

fn collapse(ram: &File, offset: usize) -> io::Result<()> {
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, wherever there is room for it.
    let room = unsafe { libc::mmap(ptr::null_mut(), 2 * HUGE, libc::PROT_NONE, anonymous, -1, 0) };
    if room == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // The kernel takes aligned mappings only.
    let aligned = room.cast::<u8>();
    let block = aligned.wrapping_add(aligned.align_offset(HUGE)).cast();
    let (shared, offset) = (libc::MAP_SHARED | libc::MAP_FIXED, offset as libc::off_t);
    // SAFETY: the range is inside the new mapping, to which nobody has references.
    let done = unsafe {
        libc::mmap(block, HUGE, libc::PROT_READ, shared, ram.as_raw_fd(), offset) != libc::MAP_FAILED
            && libc::madvise(block, HUGE, libc::MADV_COLLAPSE) == 0
    };
    let result = if done { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: as above.
    unsafe { libc::munmap(room, 2 * HUGE) };
    result
}
