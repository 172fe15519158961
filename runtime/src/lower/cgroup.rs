//! `linux.resources` to cgroup v2: the exact limits for the guest's cgroup, weights and CPU sets for the host's.
//!
//! config.json uses terms of cgroup v1 in part (shares, memory+swap). CPU and memory *sets* name the host's CPUs and
//! memory nodes: they go to the host's cgroup, where they bind the VM, and the guest's own CPUs, which are others, stay
//! free. Limits of CPU time, memory and processes hold for what runs in the guest and so go there.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::limits::{HostCgroup, Limits, is_page_size};
use super::{block_io, number_list, unified};
use crate::oci::bundle::SpecError;
use crate::vm::sizing;

/// The default period of a CPU quota, in microseconds.
pub const DEFAULT_PERIOD: u64 = 100_000;

/// Smallest memory limit, in bytes.
const MIN_MEMORY: u64 = 512 << 10;

/// Splits `linux.resources` between guest and host: all of it but the device rules, and so all that can change while the
/// container runs.
///
/// # Errors
/// A value that no cgroup can take.
pub fn limits(resources: &LinuxResources, warnings: &mut Vec<String>) -> Result<Limits, SpecError> {
    let mut limits = Limits::default();
    if let Some(given) = resources.memory() {
        memory(given, &mut limits, warnings)?;
    }
    if let Some(given) = resources.cpu() {
        cpu(given, &mut limits, warnings)?;
    }
    if let Some(pids) = resources.pids().filter(|pids| pids.limit() != 0) {
        let value = if pids.limit() > 0 { pids.limit().to_string() } else { "max".to_owned() };
        limits.guest.push(("pids.max".to_owned(), value));
    }
    if let Some(given) = resources.block_io() {
        block_io::lower(given, &mut limits, warnings)?;
    }
    huge_pages(resources, &mut limits)?;
    without_a_place(resources, warnings);
    if let Some(files) = resources.unified() {
        unified::lower(files, &mut limits)?;
    }
    Ok(limits)
}

/// Warns that limits of the host's disks have no effect for a container in another container's VM.
pub fn warn_of_pod(limits: &HostCgroup, warnings: &mut Vec<String>) {
    if limits.values.iter().any(|(file, value)| file.starts_with("io.") && value.contains(':')) {
        let sentence = "linux.resources.blockIO: limits of the host's disks have no effect in a pod: the VMM reads \
                        and writes for all its containers, and is in the sandbox's cgroup";
        warnings.push(sentence.to_owned());
    }
}

fn without_a_place(resources: &LinuxResources, warnings: &mut Vec<String>) {
    let network = resources.network().as_ref();
    let class = network.is_some_and(|network| network.class_id().is_some_and(|class| class != 0));
    let priorities =
        network.is_some_and(|network| network.priorities().as_ref().is_some_and(|list| !list.is_empty()));
    for (name, _) in
        [("network.classID", class), ("network.priorities", priorities)].iter().filter(|(_, asked)| *asked)
    {
        warnings.push(format!("linux.resources.{name} has no equivalent in cgroup v2"));
    }
    if resources.rdma().as_ref().is_some_and(|map| !map.is_empty()) {
        warnings.push("linux.resources.rdma has no effect: a VM has no RDMA devices of the host".to_owned());
    }
}

fn memory(given: &LinuxMemory, limits: &mut Limits, warnings: &mut Vec<String>) -> Result<(), SpecError> {
    let property = |name: &str| format!("linux.resources.memory.{name}");
    let mut set = |file: &str, value: String| limits.guest.push((file.to_owned(), value));
    let limit = bytes(given.limit(), &property("limit"))?;
    let reservation = bytes(given.reservation(), &property("reservation"))?;
    let swap = bytes(given.swap(), &property("swap"))?;
    match limit {
        Some(Amount::Bytes(bytes)) if bytes < MIN_MEMORY => {
            let problem = format!("the memory limit is too small: {bytes} bytes; give {MIN_MEMORY} or more");
            return Err(SpecError::new(property("limit"), problem));
        }
        Some(Amount::Bytes(bytes)) => {
            limits.demand.memory = Some(bytes);
            set("memory.max", bytes.to_string());
        }
        Some(Amount::Unlimited) => set("memory.max", "max".to_owned()),
        None => {}
    }
    if let Some(Amount::Bytes(bytes)) = reservation {
        set("memory.low", bytes.to_string());
    }
    // The guest has no swap, but a container may read the limit. config.json counts memory and swap together.
    match (swap, limit) {
        (Some(Amount::Unlimited), _) => set("memory.swap.max", "max".to_owned()),
        (Some(Amount::Bytes(both)), Some(Amount::Bytes(limit))) if both >= limit => {
            set("memory.swap.max", (both - limit).to_string());
        }
        (Some(Amount::Bytes(_)), _) => {
            let problem = "memory plus swap must be at least linux.resources.memory.limit";
            return Err(SpecError::new(property("swap"), problem));
        }
        (None, _) => {}
    }
    if given.swappiness().is_some_and(|swappiness| swappiness > 100) {
        return Err(SpecError::new(property("swappiness"), "is not between 0 and 100"));
    }
    let unapplied = [
        ("kernel", given.kernel().is_some_and(|limit| limit > 0)),
        ("kernelTCP", given.kernel_tcp().is_some_and(|limit| limit > 0)),
        ("swappiness", given.swappiness().is_some()),
        ("disableOOMKiller", given.disable_oom_killer() == Some(true)),
        // Version 2 is always hierarchical.
        ("useHierarchy", given.use_hierarchy() == Some(false)),
    ];
    for (name, _) in unapplied.into_iter().filter(|(_, asked)| *asked) {
        warnings.push(format!("{} has no equivalent in cgroup v2", property(name)));
    }
    Ok(())
}

/// A memory amount; -1 is "unlimited", 0 is "not given" (runtime-spec config-linux "Memory").
#[derive(Clone, Copy, PartialEq, Eq)]
enum Amount {
    Bytes(u64),
    Unlimited,
}

fn bytes(amount: Option<i64>, property: &str) -> Result<Option<Amount>, SpecError> {
    match amount {
        None | Some(0) => Ok(None),
        Some(-1) => Ok(Some(Amount::Unlimited)),
        Some(amount) => u64::try_from(amount)
            .map(|bytes| Some(Amount::Bytes(bytes)))
            .map_err(|_| SpecError::new(property, format!("{amount} is neither a number of bytes nor -1"))),
    }
}

fn cpu(given: &LinuxCpu, limits: &mut Limits, warnings: &mut Vec<String>) -> Result<(), SpecError> {
    let property = |name: &str| format!("linux.resources.cpu.{name}");
    if let Some(shares) = given.shares().filter(|shares| *shares != 0) {
        let weight = weight(shares).to_string();
        limits.guest.push(("cpu.weight".to_owned(), weight.clone()));
        limits.host.values.push(("cpu.weight", weight));
    }
    let period = given.period().filter(|period| *period != 0);
    if let Some(period) = period.filter(|period| !(1_000..=1_000_000).contains(period)) {
        let problem = format!("{period} is not between 1000 and 1000000 microseconds");
        return Err(SpecError::new(property("period"), problem));
    }
    let quota = given.quota().filter(|quota| *quota != 0);
    if let (Some(burst), Some(quota)) = (given.burst(), quota.and_then(|quota| u64::try_from(quota).ok()))
        && burst > quota
    {
        return Err(SpecError::new(property("burst"), format!("{burst} is above the quota, {quota}")));
    }
    if quota.is_some() || period.is_some() {
        let quota = match quota {
            Some(quota) if (1..1_000).contains(&quota) => {
                return Err(SpecError::new(property("quota"), format!("{quota} is below 1000 microseconds")));
            }
            Some(quota) if quota > 0 => quota.to_string(),
            _ => "max".to_owned(),
        };
        let period = period.unwrap_or(DEFAULT_PERIOD);
        limits.demand.cpus = quota.parse().ok().map(|quota| sizing::cpus(quota, period));
        limits.guest.push(("cpu.max".to_owned(), format!("{quota} {period}")));
    }
    if let Some(burst) = given.burst() {
        limits.guest.push(("cpu.max.burst".to_owned(), burst.to_string()));
    }
    if let Some(idle) = given.idle() {
        if !(0..=1).contains(&idle) {
            return Err(SpecError::new(property("idle"), format!("{idle} is neither 0 nor 1")));
        }
        limits.guest.push(("cpu.idle".to_owned(), idle.to_string()));
    }
    for (file, set, name) in [("cpuset.cpus", given.cpus(), "cpus"), ("cpuset.mems", given.mems(), "mems")] {
        let Some(set) = set.as_ref().filter(|set| !set.is_empty()) else { continue };
        number_list::parse(set).map_err(|problem| SpecError::new(property(name), problem))?;
        limits.host.values.push((file, set.clone()));
    }
    let realtime =
        [given.realtime_runtime().is_some_and(|t| t != 0), given.realtime_period().is_some_and(|t| t != 0)];
    if realtime.contains(&true) {
        warnings.push(format!(
            "{} has no equivalent in cgroup v2",
            property("realtimeRuntime and realtimePeriod")
        ));
    }
    Ok(())
}

/// The limits of huge pages, of every size that the guest's kernel has.
fn huge_pages(resources: &LinuxResources, limits: &mut Limits) -> Result<(), SpecError> {
    let given = resources.hugepage_limits().as_deref().unwrap_or_default();
    for (index, given) in given.iter().enumerate() {
        let size = given.page_size();
        if !is_page_size(size) {
            let property = format!("linux.resources.hugepageLimits[{index}].pageSize");
            return Err(SpecError::new(property, format!("{size:?} is not a size such as 2MB")));
        }
        let limit = if given.limit() < 0 { "max".to_owned() } else { given.limit().to_string() };
        // Pages that are reserved and not used yet count too.
        limits.guest.push((format!("hugetlb.{size}.rsvd.max"), limit.clone()));
        limits.guest.push((format!("hugetlb.{size}.max"), limit));
    }
    Ok(())
}

/// cgroup v1's CPU shares (2 to 262144, default 1024) as v2's weight (1 to 10000, default 100), so that the smallest,
/// the largest and the default value map onto each other: log10(weight) is a parabola in log2(shares) through those
/// three points.
fn weight(shares: u64) -> u64 {
    const MIN: u64 = 2;
    const MAX: u64 = 262_144;
    let exponent = (shares.clamp(MIN, MAX) as f64).log2();
    let log_weight = (exponent * exponent + 125.0 * exponent) / 612.0 - 7.0 / 34.0;
    // Within 1 to 10000 for every clamped input.
    10f64.powf(log_weight).ceil() as u64
}

#[cfg(test)]
#[path = "cgroup_test.rs"]
mod tests;
