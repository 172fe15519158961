//! `process.scheduler`, `process.ioPriority`, `process.execCPUAffinity`, `linux.personality` and `linux.memoryPolicy`.

use std::io;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use serde_json::Value;

use crate::config::{at, strings, text};
use crate::findings::Findings;

/// The kernel's numbers are the places in these lists.
const POLICIES: [&str; 7] =
    ["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"];
const CLASSES: [&str; 4] = ["IOPRIO_CLASS_NONE", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"];
const MEMORY_MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
const FLAGS: [(&str, u64); 5] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x1),
    ("SCHED_FLAG_RECLAIM", 0x2),
    ("SCHED_FLAG_DL_OVERRUN", 0x4),
    ("SCHED_FLAG_KEEP_POLICY", 0x8),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
];

/// `executed`: whether the process came by exec, which alone has an affinity.
pub fn check(config: &Value, executed: bool, findings: &mut Findings) -> Result<()> {
    scheduler(at(config, "process.scheduler"), findings)?;
    let affinity = text(at(config, "process.execCPUAffinity"), "final");
    if executed && !affinity.is_empty() {
        let cpus = sched_getaffinity(Pid::this())?;
        let found: Vec<u64> =
            (0..CpuSet::count()).filter(|cpu| cpus.is_set(*cpu) == Ok(true)).map(|cpu| cpu as u64).collect();
        findings.equal_lists("process.execCPUAffinity.final", &found, &numbers(affinity));
    }
    let io = at(config, "process.ioPriority");
    if io.is_object() {
        const WHO_PROCESS: u32 = 1;
        // SAFETY: numbers only; 0 is this process.
        let found = ask("ioprio_get", unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) })?;
        let class = CLASSES.get((found >> 13) as usize).copied().unwrap_or("unknown");
        let priority = found & 0x1fff;
        let wanted = format!("{} {}", text(io, "class"), io["priority"].as_i64().unwrap_or(0));
        findings.equal("process.ioPriority", "", format!("{class} {priority}"), wanted);
    }
    let personality = at(config, "linux.personality");
    if personality.is_object() {
        // SAFETY: this number asks only.
        let found = unsafe { libc::personality(0xffff_ffff) };
        let found = match found as u32 & 0xff {
            0 => "LINUX".to_owned(),
            8 => "LINUX32".to_owned(),
            other => other.to_string(),
        };
        findings.equal("linux.personality.domain", "", found.as_str(), text(personality, "domain"));
    }
    memory(at(config, "linux.memoryPolicy"), findings);
    Ok(())
}

fn ask(call: &'static str, result: libc::c_long) -> Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()).context(call) } else { Ok(result) }
}

#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

fn scheduler(wanted: &Value, findings: &mut Findings) -> Result<()> {
    if !wanted.is_object() {
        return Ok(());
    }
    let mut found = Attributes::default();
    let size = size_of::<Attributes>();
    // SAFETY: sched_getattr fills as much as it is told that there is.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut found, size, 0) };
    ask("sched_getattr", result)?;
    let policy = POLICIES.get(found.policy as usize).copied().unwrap_or("unknown");
    findings.equal("process.scheduler.policy", "", policy, text(wanted, "policy"));
    let mut number = |name: &str, found: i64| {
        if let Some(wanted) = wanted[name].as_i64() {
            findings.equal(&format!("process.scheduler.{name}"), "", found, wanted);
        }
    };
    number("nice", found.nice.into());
    number("priority", found.priority.into());
    number("runtime", found.runtime as i64);
    number("deadline", found.deadline as i64);
    number("period", found.period as i64);
    if let Some(flags) = wanted["flags"].as_array() {
        let names = |bits: u64| FLAGS.iter().filter(move |(_, bit)| bits & bit != 0).map(|(name, _)| *name);
        let listed = FLAGS.iter().filter(|(name, _)| flags.iter().any(|flag| flag == name));
        // What the last two say is about the call alone.
        let lasting = listed.fold(0, |bits, (_, bit)| bits | bit) & 0x7;
        let found: Vec<_> = names(found.flags).collect();
        findings.equal_lists("process.scheduler.flags", &found, &names(lasting).collect::<Vec<_>>());
    }
    Ok(())
}

fn memory(wanted: &Value, findings: &mut Findings) {
    if !wanted.is_object() {
        return;
    }
    const MODE: u32 = 0xff;
    const FLAGS: [(&str, u32); 3] = [
        ("MPOL_F_NUMA_BALANCING", 1 << 13),
        ("MPOL_F_RELATIVE_NODES", 1 << 14),
        ("MPOL_F_STATIC_NODES", 1 << 15),
    ];
    const NODES: usize = 64;
    let (mut mode, mut nodes) = (0u32, [0u64; NODES / 64 + 1]);
    // SAFETY: get_mempolicy fills a number and as many bits as it is told that there are.
    let result = unsafe {
        libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, nodes.as_mut_ptr(), NODES, 0usize, 0usize)
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        for name in ["mode", "nodes", "flags"].iter().filter(|name| !wanted[**name].is_null()) {
            let path = format!("linux.memoryPolicy.{name}");
            findings.holds(&path, false, || format!("is not there: get_mempolicy: {error}"));
        }
        return;
    }
    let found = MEMORY_MODES.get((mode & MODE) as usize).copied().unwrap_or("unknown");
    findings.equal("linux.memoryPolicy.mode", "", found, text(wanted, "mode"));
    let flags = FLAGS.iter().filter(|(_, bit)| mode & bit != 0).map(|(name, _)| (*name).to_owned());
    let mut wanted_flags = strings(wanted, "flags");
    wanted_flags.sort();
    findings.equal_lists("linux.memoryPolicy.flags", &flags.collect::<Vec<_>>(), &wanted_flags);
    if !text(wanted, "nodes").is_empty() {
        let found: Vec<u64> = (0..64).filter(|node| nodes[0] & 1 << node != 0).collect();
        findings.equal_lists("linux.memoryPolicy.nodes", &found, &numbers(text(wanted, "nodes")));
    }
}

/// A list like `0-3,7`.
fn numbers(list: &str) -> Vec<u64> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<u64>().unwrap_or(1)..=last.parse::<u64>().unwrap_or(0)
    };
    list.split(',').flat_map(range).collect()
}
