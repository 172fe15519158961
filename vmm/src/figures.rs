//! What a running VMM costs.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    ops::Range,
};

use stockade_protocol::vmm::{Figures, ThreadTime};
use vm_memory::{GuestMemory, GuestMemoryMmap, GuestMemoryRegion};

/// The host's time stamp counter.
pub fn host_tsc() -> u64 {
    // SAFETY: every x86_64 CPU has a TSC, and user space may read it unless a prctl nobody makes forbids it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Where the figures come from.
#[derive(Clone, Debug)]
pub struct FigureSource {
    /// Host TSC when `main` began.
    pub entry_tsc: u64,
    /// Host TSC when the boot CPU was about to run.
    pub run_tsc: u64,
    /// Guest TSC minus host TSC.
    pub tsc_offset: u64,
    /// Guest RAM.
    pub memory: GuestMemoryMmap,
}

impl FigureSource {
    /// The figures now.
    ///
    /// # Errors
    /// /proc/self/smaps cannot be read.
    pub fn read(&self) -> io::Result<Figures> {
        let guest: Vec<_> = self
            .memory
            .iter()
            .map(|region| {
                let start = region.as_ptr() as u64;
                start..start + region.len()
            })
            .collect();
        let (guest_kib, overhead_kib) = resident(BufReader::new(File::open("/proc/self/smaps")?), &guest)?;
        Ok(Figures {
            entry_tsc: self.entry_tsc,
            run_tsc: self.run_tsc,
            tsc_offset: self.tsc_offset,
            overhead_kib,
            guest_kib,
        })
    }
}

/// The CPU times of this process's threads.
///
/// # Errors
/// /proc/self/task cannot be read.
pub fn threads() -> io::Result<Vec<ThreadTime>> {
    let tasks = fs::read_dir("/proc/self/task")?;
    // One that has ended meanwhile is left out.
    let stat = |task: io::Result<fs::DirEntry>| fs::read_to_string(task.ok()?.path().join("stat")).ok();
    Ok(tasks.filter_map(|task| thread_time(&stat(task)?)).collect())
}

/// What a /proc/PID/task/TID/stat says.
fn thread_time(stat: &str) -> Option<ThreadTime> {
    /// USER_HZ of x86-64.
    const TICK_MS: u64 = 1000 / 100;
    // The name may hold anything, also parentheses.
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut times = tail.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some(ThreadTime { name: name.to_owned(), cpu_ms: user.saturating_add(system).saturating_mul(TICK_MS) })
}

/// KiB resident inside and outside of `guest`, from a /proc/PID/smaps.
fn resident(smaps: impl BufRead, guest: &[Range<u64>]) -> io::Result<(u64, u64)> {
    let (mut inside, mut outside, mut in_guest) = (0, 0, false);
    for line in smaps.lines() {
        let line = line?;
        if let Some(rss) = line.strip_prefix("Rss:") {
            let kib: u64 = rss.trim().trim_end_matches(" kB").parse().map_err(io::Error::other)?;
            *(if in_guest { &mut inside } else { &mut outside }) += kib;
        } else if let Some((start, _)) = line.split_once('-')
            && let Ok(start) = u64::from_str_radix(start, 16)
        {
            in_guest = guest.iter().any(|range| range.contains(&start));
        }
    }
    Ok((inside, outside))
}

#[cfg(test)]
#[path = "figures_test.rs"]
mod tests;
