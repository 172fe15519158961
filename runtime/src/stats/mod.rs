//! A container's statistics in runc's form.
//!
//! That form is cgroup v1's: memory with and without swap, block I/O as lists of operations. Programs read it by these
//! names, so the files of version 2 are translated into it as runc does; values that version 2 does not have are 0 or
//! left out, as in runc.

mod files;
pub mod usage;

use std::collections::BTreeMap;

use serde::Serialize;

pub use files::{CgroupFiles, Pressure};

/// Nanoseconds in a microsecond.
const NS_PER_US: u64 = 1000;

/// `data` of an event of type `stats`.
#[derive(Debug, Serialize)]
pub struct Stats {
    cpu: Cpu,
    cpuset: CpuSet,
    memory: Memory,
    pids: Pids,
    blkio: BlockIo,
    hugetlb: BTreeMap<String, HugeTlb>,
    intel_rdt: BTreeMap<String, String>,
    network_interfaces: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

/// CPU time, in nanoseconds.
#[derive(Debug, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_periods: u64,
    /// Time in which the limit stopped the container, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    throttled_time: u64,
}

/// CPU and memory sets; cgroup v2 has only the sets themselves.
#[derive(Debug, Default, Serialize)]
struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

/// Memory, in bytes.
#[derive(Debug, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
    event_count: MemoryEvents,
}

#[derive(Debug, Default, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Serialize)]
struct MemoryEvents {
    #[serde(skip_serializing_if = "is_zero")]
    low: u64,
    #[serde(skip_serializing_if = "is_zero")]
    high: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    #[serde(skip_serializing_if = "is_zero")]
    oom: u64,
    #[serde(skip_serializing_if = "is_zero")]
    oom_kill: u64,
    #[serde(skip_serializing_if = "is_zero")]
    oom_group_kill: u64,
}

#[derive(Debug, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    /// The limit; 0, and so left out, if there is none.
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Serialize)]
struct BlockIoEntry {
    #[serde(skip_serializing_if = "is_zero")]
    major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    minor: u64,
    op: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    value: u64,
}

#[derive(Debug, Serialize)]
struct HugeTlb {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    failcnt: u64,
}

#[derive(Debug, Serialize)]
struct Psi {
    some: PsiData,
    full: PsiData,
}

#[derive(Debug, Serialize)]
struct PsiData {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Stats {
    /// The statistics from these files of a cgroup.
    pub fn new(files: &CgroupFiles) -> Self {
        let hugetlb = |size: &&str| {
            let file = |name: &str| format!("hugetlb.{size}.{name}");
            let usage = files.number(&file("current")).unwrap_or(0);
            ((*size).to_owned(), HugeTlb { usage, failcnt: files.of(&file("events"), "max") })
        };
        Self {
            cpu: Cpu::new(files),
            cpuset: CpuSet {
                cpus: files.set("cpuset.cpus.effective"),
                mems: files.set("cpuset.mems.effective"),
                ..CpuSet::default()
            },
            memory: Memory::new(files),
            pids: Pids {
                current: files.number("pids.current").unwrap_or(0),
                limit: files.number("pids.max").unwrap_or(0),
            },
            blkio: BlockIo::new(files),
            hugetlb: files.huge_page_sizes().iter().map(hugetlb).collect(),
            intel_rdt: BTreeMap::new(),
            network_interfaces: None,
        }
    }
}

impl Cpu {
    fn new(files: &CgroupFiles) -> Self {
        let stat = files.keyed("cpu.stat");
        let count = |key: &str| stat.get(key).copied().unwrap_or(0);
        let ns = |key: &str| count(key).saturating_mul(NS_PER_US);
        Self {
            usage: CpuUsage { total: ns("usage_usec"), kernel: ns("system_usec"), user: ns("user_usec") },
            throttling: Throttling {
                periods: count("nr_periods"),
                throttled_periods: count("nr_throttled"),
                throttled_time: ns("throttled_usec"),
            },
            psi: psi(files, "cpu.pressure"),
        }
    }
}

impl Memory {
    fn new(files: &CgroupFiles) -> Self {
        let stat = files.keyed("memory.stat");
        let events = files.keyed("memory.events");
        let event = |key: &str| events.get(key).copied().unwrap_or(0);
        let number = |file: &str| files.number(file).unwrap_or(0);
        let usage = MemoryEntry {
            limit: files.limit("memory.max").unwrap_or(0),
            usage: number("memory.current"),
            max: number("memory.peak"),
            failcnt: event("max"),
        };
        // Version 1 counts memory and swap together.
        let swap_limit = files.limit("memory.swap.max");
        let swap = MemoryEntry {
            limit: swap_limit.map_or(0, |limit| limit.saturating_add(usage.limit)),
            usage: swap_limit.map_or(0, |_| number("memory.swap.current").saturating_add(usage.usage)),
            max: number("memory.swap.peak"),
            failcnt: files.of("memory.swap.events", "max"),
        };
        Self {
            cache: stat.get("file").copied().unwrap_or(0),
            usage,
            swap,
            kernel: MemoryEntry::default(),
            kernel_tcp: MemoryEntry::default(),
            raw: stat.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            psi: psi(files, "memory.pressure"),
            event_count: MemoryEvents {
                low: event("low"),
                high: event("high"),
                max: event("max"),
                oom: event("oom"),
                oom_kill: event("oom_kill"),
                oom_group_kill: event("oom_group_kill"),
            },
        }
    }
}

impl BlockIo {
    fn new(files: &CgroupFiles) -> Self {
        let io = files.io();
        let entries = |read: &str, write: &str| {
            let entry = |io: &files::IoEntry| {
                let op = if io.key == read { "Read" } else { "Write" };
                let wanted = io.key == read || io.key == write;
                wanted.then_some(BlockIoEntry { major: io.major, minor: io.minor, op, value: io.value })
            };
            io.iter().filter_map(entry).collect()
        };
        Self {
            io_service_bytes_recursive: entries("rbytes", "wbytes"),
            io_serviced_recursive: entries("rios", "wios"),
            psi: psi(files, "io.pressure"),
        }
    }
}

fn psi(files: &CgroupFiles, file: &str) -> Option<Psi> {
    let [some, full] =
        files.pressure(file)?.map(|Pressure { averages: [avg10, avg60, avg300], total_us }| PsiData {
            avg10,
            avg60,
            avg300,
            total: total_us,
        });
    Some(Psi { some, full })
}

#[cfg(test)]
#[path = "stats_test.rs"]
mod tests;
