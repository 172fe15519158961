//! `linux.resources` in the files of cgroup v2.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use crate::config::{at, list, text};
use crate::findings::Findings;
use crate::mount_tree;

const PAGE: u64 = 4096;

/// One file, or one word of it: the property that it comes from, its name, what it should say.
type Wanted = (String, String, String);

/// The file with two words, each a property of its own.
const CPU_MAX: &str = "cpu.max";

pub fn check(config: &Value, findings: &mut Findings) -> Result<()> {
    let wanted = wanted(at(config, "linux.resources"));
    if wanted.is_empty() {
        return Ok(());
    }
    let Some(directory) = directory()? else {
        findings.unseen("linux.resources", "no cgroup2 is mounted");
        return Ok(());
    };
    for (path, file, wanted) in wanted {
        let found = fs::read_to_string(directory.join(&file));
        let found = found.map_or_else(|error| error.to_string(), |text| text.trim().to_owned());
        let word = |place: usize| found.split(' ').nth(place).unwrap_or_default().to_owned();
        let found = match (file.as_str(), path.ends_with(".period")) {
            (CPU_MAX, false) => word(0),
            (CPU_MAX, true) => word(1),
            _ => found,
        };
        findings.equal(&path, &file, found, wanted);
    }
    Ok(())
}

/// Where this process's cgroup is mounted.
fn directory() -> Result<Option<PathBuf>> {
    let Ok(mounts) = mount_tree::read() else { return Ok(None) };
    let Some(mount) = mounts.iter().find(|mount| mount.fstype == "cgroup2") else { return Ok(None) };
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let below = own.strip_prefix(mount.root.as_str()).unwrap_or(own);
    Ok(Some(mount.point.join(below.trim_start_matches('/'))))
}

fn wanted(resources: &Value) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let mut add = |path: &str, file: &str, value: String| {
        wanted.push((format!("linux.resources.{path}"), file.to_owned(), value));
    };
    memory(&resources["memory"], &mut add);
    cpu(&resources["cpu"], &mut add);
    match at(resources, "pids.limit").as_i64() {
        Some(limit) if limit > 0 => add("pids.limit", "pids.max", limit.to_string()),
        Some(limit) if limit < 0 => add("pids.limit", "pids.max", "max".to_owned()),
        _ => {}
    }
    for (index, entry) in list(resources, "hugepageLimits").iter().enumerate() {
        let size = text(entry, "pageSize");
        let page = if size == "1GB" { 1 << 30 } else { 2 << 20 };
        let limit = entry["limit"].as_u64().unwrap_or(0) / page * page;
        let path = format!("hugepageLimits[{index}]");
        add(&path, &format!("hugetlb.{size}.max"), limit.to_string());
    }
    if let Some(weight) = at(resources, "blockIO.weight").as_u64().filter(|weight| *weight != 0) {
        // 10 to 1000 onto 1 to 10000.
        let weight = 1 + (weight - 10) * 9999 / 990;
        add("blockIO.weight", "io.weight", format!("default {weight}"));
    }
    for (file, value) in resources["unified"].as_object().into_iter().flatten() {
        add(&format!("unified[{file}]"), file, value.as_str().unwrap_or_default().to_owned());
    }
    wanted
}

fn memory(memory: &Value, add: &mut impl FnMut(&str, &str, String)) {
    let amount = |name: &str| memory[name].as_i64().filter(|amount| *amount != 0);
    let bytes = |amount: i64| match u64::try_from(amount) {
        Ok(bytes) => (bytes / PAGE * PAGE).to_string(),
        Err(_) => "max".to_owned(),
    };
    if let Some(limit) = amount("limit") {
        add("memory.limit", "memory.max", bytes(limit));
    }
    if let Some(reservation) = amount("reservation").filter(|amount| *amount > 0) {
        add("memory.reservation", "memory.low", bytes(reservation));
    }
    match (amount("swap"), amount("limit")) {
        (Some(-1), _) => add("memory.swap", "memory.swap.max", "max".to_owned()),
        // config.json counts both together.
        (Some(both), Some(limit)) => add("memory.swap", "memory.swap.max", bytes(both - limit)),
        _ => {}
    }
}

fn cpu(cpu: &Value, add: &mut impl FnMut(&str, &str, String)) {
    let number = |name: &str| cpu[name].as_i64().filter(|number| *number != 0);
    if let Some(shares) = number("shares") {
        add("cpu.shares", "cpu.weight", weight(shares as f64).to_string());
    }
    if number("quota").is_some() || number("period").is_some() {
        let quota = number("quota").filter(|quota| *quota > 0);
        add("cpu.quota", CPU_MAX, quota.map_or("max".to_owned(), |quota| quota.to_string()));
        add("cpu.period", CPU_MAX, number("period").unwrap_or(100_000).to_string());
    }
    if let Some(burst) = cpu["burst"].as_i64() {
        add("cpu.burst", "cpu.max.burst", burst.to_string());
    }
    if let Some(idle) = cpu["idle"].as_i64() {
        add("cpu.idle", "cpu.idle", idle.to_string());
    }
}

/// The parabola through (2, 1), (1024, 100) and (262144, 10000) in the logarithms of shares and weight.
fn weight(shares: f64) -> u64 {
    let (x, points) = (shares.clamp(2.0, 262_144.0).log2(), [(1.0, 0.0), (10.0, 2.0), (18.0, 4.0)]);
    let term = |(at, value): (f64, f64)| {
        let others = points.iter().filter(|(other, _)| *other != at);
        others.fold(value, |product, (other, _)| product * (x - other) / (at - other))
    };
    let exponent: f64 = points.into_iter().map(term).sum();
    // What the powers of ten miss by is not to round up the weights at the three points.
    (10f64.powf(exponent) - 1e-9).ceil() as u64
}
