//! A container's statistics as `io.containerd.cgroups.v2.Metrics`, from the files of its cgroup in the guest. The guest may
//! say what it wants: the files are bounded where they come in, and what is not a number counts as 0.

use std::fs;
use std::path::Path;

use prost::Message;

use super::messages::Any;
use crate::stats::{CgroupFiles, Pressure};

/// Largest number of block devices that are passed on.
const MAX_DEVICES: usize = 256;

#[derive(Clone, PartialEq, Message)]
struct Metrics {
    #[prost(message, optional, tag = "1")]
    pids: Option<Pids>,
    #[prost(message, optional, tag = "2")]
    cpu: Option<Cpu>,
    #[prost(message, optional, tag = "4")]
    memory: Option<Memory>,
    #[prost(message, optional, tag = "6")]
    io: Option<Io>,
    #[prost(message, optional, tag = "8")]
    memory_events: Option<MemoryEvents>,
}

#[derive(Clone, PartialEq, Message)]
struct Pids {
    #[prost(uint64, tag = "1")]
    current: u64,
    #[prost(uint64, tag = "2")]
    limit: u64,
}

#[derive(Clone, PartialEq, Message)]
struct PsiLine {
    #[prost(double, tag = "1")]
    avg10: f64,
    #[prost(double, tag = "2")]
    avg60: f64,
    #[prost(double, tag = "3")]
    avg300: f64,
    #[prost(uint64, tag = "4")]
    total: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Psi {
    #[prost(message, optional, tag = "1")]
    some: Option<PsiLine>,
    #[prost(message, optional, tag = "2")]
    full: Option<PsiLine>,
}

#[derive(Clone, PartialEq, Message)]
struct Cpu {
    #[prost(uint64, tag = "1")]
    usage_usec: u64,
    #[prost(uint64, tag = "2")]
    user_usec: u64,
    #[prost(uint64, tag = "3")]
    system_usec: u64,
    #[prost(uint64, tag = "4")]
    nr_periods: u64,
    #[prost(uint64, tag = "5")]
    nr_throttled: u64,
    #[prost(uint64, tag = "6")]
    throttled_usec: u64,
    #[prost(message, optional, tag = "7")]
    psi: Option<Psi>,
    #[prost(uint64, tag = "8")]
    nr_bursts: u64,
    #[prost(uint64, tag = "9")]
    burst_usec: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Memory {
    #[prost(uint64, tag = "1")]
    anon: u64,
    #[prost(uint64, tag = "2")]
    file: u64,
    #[prost(uint64, tag = "3")]
    kernel_stack: u64,
    #[prost(uint64, tag = "4")]
    slab: u64,
    #[prost(uint64, tag = "5")]
    sock: u64,
    #[prost(uint64, tag = "6")]
    shmem: u64,
    #[prost(uint64, tag = "7")]
    file_mapped: u64,
    #[prost(uint64, tag = "8")]
    file_dirty: u64,
    #[prost(uint64, tag = "9")]
    file_writeback: u64,
    #[prost(uint64, tag = "10")]
    anon_thp: u64,
    #[prost(uint64, tag = "11")]
    inactive_anon: u64,
    #[prost(uint64, tag = "12")]
    active_anon: u64,
    #[prost(uint64, tag = "13")]
    inactive_file: u64,
    #[prost(uint64, tag = "14")]
    active_file: u64,
    #[prost(uint64, tag = "15")]
    unevictable: u64,
    #[prost(uint64, tag = "16")]
    slab_reclaimable: u64,
    #[prost(uint64, tag = "17")]
    slab_unreclaimable: u64,
    #[prost(uint64, tag = "18")]
    pgfault: u64,
    #[prost(uint64, tag = "19")]
    pgmajfault: u64,
    #[prost(uint64, tag = "23")]
    pgrefill: u64,
    #[prost(uint64, tag = "24")]
    pgscan: u64,
    #[prost(uint64, tag = "25")]
    pgsteal: u64,
    #[prost(uint64, tag = "26")]
    pgactivate: u64,
    #[prost(uint64, tag = "27")]
    pgdeactivate: u64,
    #[prost(uint64, tag = "28")]
    pglazyfree: u64,
    #[prost(uint64, tag = "29")]
    pglazyfreed: u64,
    #[prost(uint64, tag = "30")]
    thp_fault_alloc: u64,
    #[prost(uint64, tag = "31")]
    thp_collapse_alloc: u64,
    #[prost(uint64, tag = "32")]
    usage: u64,
    #[prost(uint64, tag = "33")]
    usage_limit: u64,
    #[prost(uint64, tag = "34")]
    swap_usage: u64,
    #[prost(uint64, tag = "35")]
    swap_limit: u64,
    #[prost(uint64, tag = "36")]
    max_usage: u64,
    #[prost(message, optional, tag = "38")]
    psi: Option<Psi>,
}

#[derive(Clone, PartialEq, Message)]
struct MemoryEvents {
    #[prost(uint64, tag = "1")]
    low: u64,
    #[prost(uint64, tag = "2")]
    high: u64,
    #[prost(uint64, tag = "3")]
    max: u64,
    #[prost(uint64, tag = "4")]
    oom: u64,
    #[prost(uint64, tag = "5")]
    oom_kill: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Io {
    #[prost(message, repeated, tag = "1")]
    usage: Vec<IoEntry>,
    #[prost(message, optional, tag = "2")]
    psi: Option<Psi>,
}

#[derive(Clone, PartialEq, Message)]
struct IoEntry {
    #[prost(uint64, tag = "1")]
    major: u64,
    #[prost(uint64, tag = "2")]
    minor: u64,
    #[prost(uint64, tag = "3")]
    rbytes: u64,
    #[prost(uint64, tag = "4")]
    wbytes: u64,
    #[prost(uint64, tag = "5")]
    rios: u64,
    #[prost(uint64, tag = "6")]
    wios: u64,
}

/// The files of a cgroup of the host that statistics are made of.
const FILES: [&str; 14] = [
    "cpu.pressure",
    "cpu.stat",
    "io.pressure",
    "io.stat",
    "memory.current",
    "memory.events",
    "memory.max",
    "memory.peak",
    "memory.pressure",
    "memory.stat",
    "memory.swap.current",
    "memory.swap.max",
    "pids.current",
    "pids.max",
];

/// Those files of a cgroup's directory on the host that are there.
pub fn of_directory(directory: &Path) -> CgroupFiles {
    let read = |name: &&str| Some(((*name).to_owned(), fs::read_to_string(directory.join(name)).ok()?));
    CgroupFiles::new(FILES.iter().filter_map(read).collect())
}

/// The statistics that these files tell.
pub fn of(files: &CgroupFiles) -> Any {
    let metrics = Metrics {
        pids: Some(Pids {
            current: files.number("pids.current").unwrap_or(0),
            limit: files.limit("pids.max").unwrap_or(0),
        }),
        cpu: Some(cpu(files)),
        memory: Some(memory(files)),
        io: Some(Io { usage: io(files), psi: psi(files, "io.pressure") }),
        memory_events: Some(memory_events(files)),
    };
    Any::new("io.containerd.cgroups.v2.Metrics", &metrics)
}

fn cpu(files: &CgroupFiles) -> Cpu {
    let of = |key| files.of("cpu.stat", key);
    Cpu {
        usage_usec: of("usage_usec"),
        user_usec: of("user_usec"),
        system_usec: of("system_usec"),
        nr_periods: of("nr_periods"),
        nr_throttled: of("nr_throttled"),
        throttled_usec: of("throttled_usec"),
        psi: psi(files, "cpu.pressure"),
        nr_bursts: of("nr_bursts"),
        burst_usec: of("burst_usec"),
    }
}

fn memory(files: &CgroupFiles) -> Memory {
    let stat = files.keyed("memory.stat");
    let of = |key| stat.get(key).copied().unwrap_or(0);
    let number = |file| files.number(file).unwrap_or(0);
    Memory {
        anon: of("anon"),
        file: of("file"),
        kernel_stack: of("kernel_stack"),
        slab: of("slab"),
        sock: of("sock"),
        shmem: of("shmem"),
        file_mapped: of("file_mapped"),
        file_dirty: of("file_dirty"),
        file_writeback: of("file_writeback"),
        anon_thp: of("anon_thp"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        slab_reclaimable: of("slab_reclaimable"),
        slab_unreclaimable: of("slab_unreclaimable"),
        pgfault: of("pgfault"),
        pgmajfault: of("pgmajfault"),
        pgrefill: of("pgrefill"),
        pgscan: of("pgscan"),
        pgsteal: of("pgsteal"),
        pgactivate: of("pgactivate"),
        pgdeactivate: of("pgdeactivate"),
        pglazyfree: of("pglazyfree"),
        pglazyfreed: of("pglazyfreed"),
        thp_fault_alloc: of("thp_fault_alloc"),
        thp_collapse_alloc: of("thp_collapse_alloc"),
        usage: number("memory.current"),
        usage_limit: files.limit("memory.max").unwrap_or(0),
        swap_usage: number("memory.swap.current"),
        swap_limit: files.limit("memory.swap.max").unwrap_or(0),
        max_usage: number("memory.peak"),
        psi: psi(files, "memory.pressure"),
    }
}

fn memory_events(files: &CgroupFiles) -> MemoryEvents {
    let of = |key| files.of("memory.events", key);
    MemoryEvents {
        low: of("low"),
        high: of("high"),
        max: of("max"),
        oom: of("oom"),
        oom_kill: of("oom_kill"),
    }
}

/// One entry for each device, in the order in which they come.
fn io(files: &CgroupFiles) -> Vec<IoEntry> {
    let mut entries: Vec<IoEntry> = Vec::new();
    for value in files.io() {
        let last = entries.last().is_some_and(|e| (e.major, e.minor) == (value.major, value.minor));
        if !last {
            if entries.len() == MAX_DEVICES {
                break;
            }
            entries.push(IoEntry { major: value.major, minor: value.minor, ..IoEntry::default() });
        }
        let Some(entry) = entries.last_mut() else { break };
        match value.key.as_str() {
            "rbytes" => entry.rbytes = value.value,
            "wbytes" => entry.wbytes = value.value,
            "rios" => entry.rios = value.value,
            "wios" => entry.wios = value.value,
            _ => {}
        }
    }
    entries
}

fn psi(files: &CgroupFiles, file: &str) -> Option<Psi> {
    let line = |pressure: Pressure| {
        let [avg10, avg60, avg300] = pressure.averages;
        Some(PsiLine { avg10, avg60, avg300, total: pressure.total_us })
    };
    let [some, full] = files.pressure(file)?;
    Some(Psi { some: line(some), full: line(full) })
}

#[cfg(test)]
#[path = "metrics_test.rs"]
mod tests;
