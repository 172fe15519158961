//! The pages of a template to which every start writes, as a file beside the template has them: for each stretch the number of its first
//! page and how many there are, on a line.
//!
//! Whoever maps them as its own before it begins has one fault of the host for a stretch, and not two exits of the guest for
//! each page. It is advice: without the file, or with another one, a start is only slower or takes more memory.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

/// A stretch of pages: the number of the first one in the file with the RAM, and how many.
pub type Stretch = (u32, u32);

/// Most stretches that are kept.
const MAX_STRETCHES: usize = 1024;

/// Holes of fewer pages are part of the stretch around them.
const SMALL_HOLE: u32 = 2;

const PAGE: u64 = 4096;

/// Bits of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst): the page is the file's; it is there.
const IS_OF_FILE: u64 = 1 << 61;
const IS_PRESENT: u64 = 1 << 63;

/// Reads what [`text`] has written; what is not that is no advice.
pub fn parse(text: &str) -> Vec<Stretch> {
    let stretch = |line: &str| {
        let (first, count) = line.split_once(' ')?;
        Some((first.parse().ok()?, count.parse().ok()?))
    };
    text.lines().map(stretch).take(MAX_STRETCHES).collect::<Option<_>>().unwrap_or_default()
}

/// The text for these pages, which are in order.
pub fn text(pages: &[u32]) -> String {
    let mut stretches: Vec<Stretch> = Vec::new();
    for page in pages {
        match stretches.last_mut() {
            Some((first, count)) if page - (*first + *count) < SMALL_HOLE => *count = page + 1 - *first,
            _ => stretches.push((*page, 1)),
        }
    }
    stretches.iter().take(MAX_STRETCHES).fold(String::new(), |mut text, (first, count)| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{first} {count}");
        text
    })
}

/// The pages of this file that a process has written to in its private mappings of it, in order.
///
/// # Errors
/// Those of its /proc/PID/maps and pagemap.
pub fn written(pid: i32, file: &File) -> io::Result<Vec<u32>> {
    let inode = file.metadata()?.ino().to_string();
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut pages = Vec::new();
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let Some(Mapping { start, end, offset }) = Mapping::of(line, &inode) else { continue };
        let mut entries = vec![0; ((end - start) / PAGE * 8) as usize];
        pagemap.read_exact_at(&mut entries, start / PAGE * 8)?;
        let own = |entry: u64| entry & IS_PRESENT != 0 && entry & IS_OF_FILE == 0;
        let entries = entries.as_chunks::<8>().0.iter().map(|entry| u64::from_ne_bytes(*entry));
        pages.extend(
            (offset / PAGE..).zip(entries).filter(|(_, entry)| own(*entry)).map(|(page, _)| page as u32),
        );
    }
    pages.sort_unstable();
    Ok(pages)
}

/// A line of /proc/PID/maps.
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
}

impl Mapping {
    /// `START-END PERMISSIONS OFFSET DEVICE INODE PATH`, if it is of the file with this inode.
    fn of(line: &str, inode: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let offset = hex(words.nth(1)?)?;
        let mapping = Self { start: hex(start)?, end: hex(end)?, offset };
        words.nth(1).filter(|found| *found == inode).map(|_| mapping)
    }
}

#[cfg(test)]
#[path = "hot_test.rs"]
mod tests;
