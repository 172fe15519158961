//! What a running VMM and its file server cost.
//!
//! Neither has a procfs. The statistics are read from two of its files, which were opened before and tell nothing else.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    ops::Range,
    os::unix::fs::FileExt,
};

use stockade_protocol::vmm::{Figures, ThreadTime};
use vm_memory::{GuestMemory, GuestMemoryMmap, GuestMemoryRegion};

use crate::{file_server, threads};

/// The host's time stamp counter.
pub fn host_tsc() -> u64 {
    // SAFETY: every x86_64 CPU has a TSC, and user space may read it unless a prctl nobody makes forbids it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// The sources of the statistics.
#[derive(Debug)]
pub struct StatsSource {
    /// Host TSC when `main` began.
    pub entry_tsc: u64,
    /// Host TSC when the boot CPU was about to run.
    pub run_tsc: u64,
    /// Guest TSC minus host TSC.
    pub tsc_offset: u64,
    /// Guest RAM.
    pub memory: GuestMemoryMmap,
    /// This process's /proc/self/smaps.
    pub smaps: File,
}

impl StatsSource {
    /// The stats now.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&self, files: Option<&file_server::Process>) -> io::Result<Figures> {
        let guest: Vec<_> = self
            .memory
            .iter()
            .map(|region| {
                let start = region.as_ptr() as u64;
                start..start + region.len()
            })
            .collect();
        let (guest_kib, own_kib) = resident(BufReader::new(FromStart::of(&self.smaps)), &guest)?;
        let files_kib =
            files.map_or(Ok(0), |files| private(BufReader::new(FromStart::of(files.memory()))))?;
        Ok(Figures {
            entry_tsc: self.entry_tsc,
            run_tsc: self.run_tsc,
            tsc_offset: self.tsc_offset,
            overhead_kib: own_kib + files_kib,
            guest_kib,
        })
    }
}

/// Reads a file of procfs from its start, without the descriptor's offset.
struct FromStart<'a> {
    file: &'a File,
    offset: u64,
}

impl<'a> FromStart<'a> {
    fn of(file: &'a File) -> Self {
        Self { file, offset: 0 }
    }
}

impl Read for FromStart<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(bytes, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

/// Resident memory inside and outside of `guest`, in KiB, from a /proc/PID/smaps.
fn resident(smaps: impl BufRead, guest: &[Range<u64>]) -> io::Result<(u64, u64)> {
    let (mut inside, mut outside, mut in_guest) = (0, 0, false);
    for line in smaps.lines() {
        let line = line?;
        if let Some(rss) = line.strip_prefix("Rss:") {
            *(if in_guest { &mut inside } else { &mut outside }) += kib(rss)?;
        } else if let Some((start, _)) = line.split_once('-')
            && let Ok(start) = u64::from_str_radix(start, 16)
        {
            in_guest = guest.iter().any(|range| range.contains(&start));
        }
    }
    Ok((inside, outside))
}

/// Memory that only this process has, in KiB, from a /proc/PID/smaps_rollup.
fn private(smaps: impl BufRead) -> io::Result<u64> {
    let mut total = 0;
    for line in smaps.lines() {
        let line = line?;
        let size = line.strip_prefix("Private_Clean:").or_else(|| line.strip_prefix("Private_Dirty:"));
        total += size.map_or(Ok(0), kib)?;
    }
    Ok(total)
}

fn kib(size: &str) -> io::Result<u64> {
    size.trim().trim_end_matches(" kB").parse().map_err(io::Error::other)
}

/// The CPU times of this process's threads, and of all of the file server's together.
pub fn thread_times(files: Option<&file_server::Process>) -> Vec<ThreadTime> {
    let mut times = threads::times();
    let files = files.and_then(|files| threads::process_time(files.pid()));
    times.extend(files.map(|cpu_ms| ThreadTime { name: "files".to_owned(), cpu_ms }));
    times
}

#[cfg(test)]
#[path = "stats_test.rs"]
mod tests;
