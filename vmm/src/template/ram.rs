//! RAM in a template: a file in which each page has its place, and holes where nothing is. Boot RAM comes first, then what is
//! plugged.

use std::{fs::File, io, os::unix::fs::FileExt};

use serde::{Deserialize, Serialize};
use vm_memory::{Address, GuestAddress, GuestMemory, GuestMemoryMmap};

use crate::memory::{self, HUGE_PAGE_SIZE, MMIO_END, PAGE_SIZE, Size};

/// Holes of fewer pages are part of the range around them: each range is a mapping of every clone.
const SMALL_HOLE: u64 = 32 * PAGE_SIZE;

/// Most ranges; the host's kernel lets a process have 65,530 mappings.
const MAX_RANGES: usize = 1 << 14;

/// A page in which nothing is.
const EMPTY: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];

/// How much is looked at or written at a time.
const STEP: u64 = 2 << 20;

/// Pages one after the other, in guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub(super) start: u64,
    pub(super) length: u64,
}

impl Range {
    fn end(self) -> Option<u64> {
        self.start.checked_add(self.length)
    }
}

/// What a guest of this size has: boot RAM, and as much as it may plug at first.
fn areas(size: Size) -> [(u64, u64); 2] {
    let plugged = size.growth().map_or(0, |growth| growth.usable(growth.size));
    [(0, size.boot()), (MMIO_END.raw_value(), plugged)]
}

/// Where a page of that is in the file.
fn offset(address: u64, size: Size) -> u64 {
    address.checked_sub(MMIO_END.raw_value()).map_or(address, |above| size.boot() + above)
}

/// Bytes of the file.
fn length(size: Size) -> u64 {
    areas(size).iter().map(|(_, length)| length).sum()
}

/// Whether these are pages of a guest of this size, in order.
pub fn are_plausible(ranges: &[Range], size: Size) -> bool {
    let areas = areas(size);
    let mut last = 0;
    ranges.len() <= MAX_RANGES
        && ranges.iter().all(|range| {
            let Some(end) = range.end() else { return false };
            let is_inside =
                areas.iter().any(|(start, length)| *start <= range.start && end <= start + length);
            let is_next = range.start >= last && range.length > 0;
            last = end;
            is_inside && is_next && range.start % PAGE_SIZE == 0 && range.length % PAGE_SIZE == 0
        })
}

/// Writes RAM to an empty file and returns which ranges hold something. No vCPU and no device runs.
///
/// # Errors
/// Those of the file, or RAM is scattered too much.
pub fn write(memory: &GuestMemoryMmap, size: Size, file: &File) -> io::Result<Vec<Range>> {
    file.set_len(length(size))?;
    let mut ranges: Vec<Range> = Vec::new();
    for (start, length) in areas(size) {
        for part in (start..start + length).step_by(STEP as usize) {
            let part_length = STEP.min(start + length - part);
            let bytes = bytes(memory, part, part_length)?;
            let pages = (part..).step_by(PAGE_SIZE as usize).zip(bytes.chunks(PAGE_SIZE as usize));
            for (address, page) in pages.filter(|(_, page)| *page != EMPTY) {
                file.write_all_at(page, offset(address, size))?;
                match ranges.last_mut() {
                    Some(last)
                        if last.start >= start && address - (last.start + last.length) < SMALL_HOLE =>
                    {
                        last.length = address + PAGE_SIZE - last.start;
                    }
                    _ => ranges.push(Range { start: address, length: PAGE_SIZE }),
                }
            }
        }
    }
    if ranges.len() > MAX_RANGES {
        return Err(io::Error::other(format!("the guest's memory lies in {} places", ranges.len())));
    }
    Ok(ranges)
}

/// RAM that nothing changes.
fn bytes(memory: &GuestMemoryMmap, start: u64, length: u64) -> io::Result<&[u8]> {
    // x86_64: u64 fits usize.
    let slice = memory.get_slice(GuestAddress(start), length as usize).map_err(io::Error::other)?;
    // SAFETY: the slice is in bounds and lasts as long as `memory`; vCPUs and devices, which alone write to it, are at rest.
    Ok(unsafe { std::slice::from_raw_parts(slice.ptr_guard().as_ptr(), slice.len()) })
}

/// Most pages that are made a clone's own before it begins: 8 MiB.
const MAX_HOT: u64 = 2048;

/// Where these pages of the file are in the guest: those of them that the template has, as far as they are not too many.
pub fn hot(pages: &[(u32, u32)], ranges: &[Range], size: Size) -> Vec<Range> {
    let mut left = MAX_HOT;
    let mut hot = Vec::new();
    for (first, count) in pages {
        let (offset, count) = (u64::from(*first) * PAGE_SIZE, u64::from(*count).min(left));
        left -= count;
        let start = offset.checked_sub(size.boot()).map_or(offset, |above| MMIO_END.raw_value() + above);
        let length = count * PAGE_SIZE;
        // The ranges are in order.
        let before = &ranges[..ranges.partition_point(|range| range.start <= start)];
        if length > 0 && before.last().is_some_and(|range| start + length <= range.start + range.length) {
            hot.push(Range { start, length });
        }
    }
    hot
}

/// RAM of a clone in which nothing was when the template was saved.
///
/// A clone's start touches a page here and a page there of it: a huge page for each would be most of what the start makes the host
/// clear, and of what the idle clone has. What runs in the clone later takes more, and huge pages serve it better.
#[derive(Debug)]
pub struct Fresh {
    memory: GuestMemoryMmap,
    pub(super) ranges: Vec<Range>,
}

impl Fresh {
    /// What is between these ranges, in small pages from now on.
    fn new(memory: &GuestMemoryMmap, size: Size, ranges: &[Range]) -> Self {
        let fresh = Self { memory: memory.clone(), ranges: between(ranges, size) };
        fresh.advise(false);
        fresh
    }

    /// Gives it huge pages where it has none yet.
    pub fn use_huge_pages(&self) {
        self.advise(true);
    }

    fn advise(&self, is_huge: bool) {
        for Range { start, length } in &self.ranges {
            memory::back_with_huge_pages(&self.memory, *start, *length, is_huge);
        }
    }
}

/// Where there is room for a huge page between these ranges.
fn between(ranges: &[Range], size: Size) -> Vec<Range> {
    let mut fresh = Vec::new();
    for (start, length) in areas(size) {
        let end = start + length;
        let mut from = start;
        let inside = ranges.iter().filter(|range| (start..end).contains(&range.start));
        for (next, after) in inside.map(|range| (range.start, range.start + range.length)).chain([(end, end)])
        {
            if next - from >= HUGE_PAGE_SIZE {
                fresh.push(Range { start: from, length: next - from });
            }
            from = after;
        }
    }
    fresh
}

/// Maps RAM of a template, copy-on-write, over that of a machine of the same size. The ranges have been found plausible.
///
/// # Errors
/// [`memory::Error::Map`], also where the file is too short.
pub fn map(
    memory: &GuestMemoryMmap,
    size: Size,
    file: &File,
    ranges: &[Range],
) -> Result<Fresh, memory::Error> {
    let found = file.metadata().map_err(memory::Error::Map)?.len();
    if found != length(size) {
        let short = format!("its RAM has {found} bytes, and not {}", length(size));
        return Err(memory::Error::Map(io::Error::other(short)));
    }
    for range in ranges {
        memory::map_pages(memory, range.start, file, offset(range.start, size), range.length)?;
    }
    Ok(Fresh::new(memory, size, ranges))
}
