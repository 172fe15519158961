//! How much RAM and how many CPUs a VM gets.
//!
//! The CPUs are the sum of its containers' quotas, or the host's number if one has no quota, and at most the configured
//! number. The RAM is the sum of the memory limits of all its containers plus what the guest's kernel and agent need.
//! If a container has no limit, the RAM is at least the configured default. It is never more than what the nearest
//! limit of the host's cgroups leaves after the VMM's own part.

use serde::{Deserialize, Serialize};
use stockade_protocol::vmm::MAX_VCPUS;

use crate::config::MIN_MIB;

const MIB: u64 = 1 << 20;

/// Memory for the guest's kernel, its agent and their page cache, in MiB.
pub const GUEST_OVERHEAD_MIB: u64 = 96;

/// Guest RAM divided by this number goes to the kernel's page descriptors (64 bytes for each 4096).
const PAGE_DESCRIPTORS: u64 = 64;

/// What the VMM and the relay may use on the host besides guest RAM, in MiB: page tables, descriptors and inodes of the
/// file server, buffers.
pub const HOST_OVERHEAD_MIB: u64 = 128;

/// Largest RAM that a guest can have, in MiB: the largest number in the VMM's configuration.
const MAX_MIB: u64 = u32::MAX as u64;

/// The host leaves too little memory.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "no memory for the VM: the host leaves it {limit_mib} MiB, but a guest needs {MIN_MIB} MiB and the VMM \
     {HOST_OVERHEAD_MIB} MiB; raise memory.max of the cgroups above the container's"
)]
pub struct TooLittle {
    limit_mib: u64,
}

/// What limits ask of a VM; `None` without a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Memory limit, in bytes.
    pub memory: Option<u64>,
    /// CPU quota, in thousandths of a CPU.
    pub cpus: Option<u64>,
}

/// What annotations say about a whole pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// The sum of its containers' limits.
    pub demand: Demand,
    /// Additional memory that the administrator reserves for the VM, in bytes.
    pub overhead: Option<u64>,
}

/// The size of a VM, and the values from which it follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSize {
    /// The guest's RAM now, in MiB.
    pub mib: u32,
    /// Its RAM if a container has no limit, in MiB.
    pub default_mib: u32,
    /// Its RAM if config.json fixes it, whatever the limits are, in MiB.
    pub fixed_mib: Option<u32>,
    /// What its sandbox's annotations say.
    pub pod: Pod,
    /// CPUs that the guest uses now.
    pub vcpus: u8,
    /// CPUs that the guest uses if a container has no quota.
    pub default_vcpus: u8,
    /// Largest number of CPUs that the guest can use.
    pub most_vcpus: u8,
    /// Its CPUs if config.json fixes them, whatever the quotas are.
    pub fixed_vcpus: Option<u8>,
    /// RAM that its template has given the guest, in MiB, if that is more than it needs. The guest keeps it: the
    /// guest's cgroups limit what its containers use, and the host's cgroup limits what the VM uses.
    #[serde(default)]
    pub class_mib: u32,
}

impl VmSize {
    /// RAM, in MiB, for the limits of a sandbox and its members: what all of them ask for together, and not less than
    /// the default if one of them has no limit.
    pub fn wanted_mib(&self, own: Demand, members: &[Demand]) -> u32 {
        if let Some(fixed) = self.fixed_mib {
            return fixed;
        }
        let pod = self.pod.demand.memory;
        let sum =
            members.iter().chain([&own]).filter_map(|demand| demand.memory).fold(0, u64::saturating_add);
        let limit = sum.max(pod.unwrap_or(0));
        let is_unlimited =
            pod.or(own.memory).is_none() || members.iter().any(|member| member.memory.is_none());
        let limited = if limit > 0 { self.mib_for(limit) } else { 0 };
        let default = if is_unlimited { self.default_mib.into() } else { 0 };
        limited.max(default).clamp(MIN_MIB, MAX_MIB) as u32
    }

    /// Whether every container has a limit. Then RAM beyond `mib` does no harm, because no container can use it.
    pub fn is_limited(&self, own: Demand) -> bool {
        self.fixed_mib.is_none() && self.pod.demand.memory.or(own.memory).is_some()
    }

    /// CPUs for the quotas of a sandbox and its members: the sum of the quotas, rounded up, or the default if one of
    /// them has no quota.
    pub fn wanted_vcpus(&self, own: Demand, members: &[Demand]) -> u8 {
        if let Some(fixed) = self.fixed_vcpus {
            return fixed;
        }
        let pod = self.pod.demand.cpus;
        let sum = members.iter().chain([&own]).filter_map(|demand| demand.cpus).fold(0, u64::saturating_add);
        let quota = sum.max(pod.unwrap_or(0)).div_ceil(1000);
        let is_unlimited = pod.or(own.cpus).is_none() || members.iter().any(|member| member.cpus.is_none());
        let least = if is_unlimited { self.default_vcpus } else { 1 };
        quota.max(least.into()).min(self.most_vcpus.max(1).into()) as u8
    }

    /// RAM, in MiB, that a limit in bytes needs: the limit plus the guest's kernel and agent.
    fn mib_for(&self, limit: u64) -> u64 {
        let limit_mib = limit.div_ceil(MIB);
        // The VMM uses a part of what is reserved.
        let given = self.pod.overhead.map_or(0, |bytes| (bytes / MIB).saturating_sub(HOST_OVERHEAD_MIB));
        limit_mib.saturating_add(limit_mib / PAGE_DESCRIPTORS).saturating_add(GUEST_OVERHEAD_MIB.max(given))
    }
}

/// A quota in a period, in microseconds, as thousandths of a CPU, rounded up.
pub fn cpus(quota: u64, period: u64) -> u64 {
    quota.saturating_mul(1000).div_ceil(period.max(1))
}

/// The part of `wanted_mib` that a limit of the host, in bytes, allows.
///
/// # Errors
/// [`TooLittle`].
pub fn within(wanted_mib: u32, host_limit: Option<u64>) -> Result<u32, TooLittle> {
    let available = host_limit.map_or(MAX_MIB, |limit| (limit / MIB).saturating_sub(HOST_OVERHEAD_MIB));
    if available < MIN_MIB {
        return Err(TooLittle { limit_mib: host_limit.unwrap_or_default() / MIB });
    }
    Ok(u64::from(wanted_mib).max(MIN_MIB).min(available).min(MAX_MIB) as u32)
}

/// CPUs of the host that this process may use; 1 if the kernel does not tell.
pub fn host_cpus() -> u8 {
    // SAFETY: a set of CPUs is plain integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills the set that it is given, up to its size.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    // SAFETY: counts the bits of a set that is there.
    let count = if result == 0 { unsafe { libc::CPU_COUNT(&set) } } else { 1 };
    count.clamp(1, MAX_VCPUS.into()) as u8
}

/// Largest RAM that a VM on this host can be given, in MiB.
pub fn most_mib() -> u32 {
    host_ram().map_or(0, |bytes| (bytes / MIB).min(MAX_MIB) as u32)
}

/// RAM of the host, in bytes: a guest never gets more.
pub fn host_ram() -> Option<u64> {
    // SAFETY: sysinfo is plain integers, for which zero is a value.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills the structure that it is given.
    let result = unsafe { libc::sysinfo(&raw mut info) };
    (result == 0).then(|| info.totalram.saturating_mul(info.mem_unit.into()))
}

/// `memory.max` of the host's cgroup for a VM of this size, in bytes.
pub fn host_limit_bytes(guest_mib: u32) -> u64 {
    (u64::from(guest_mib) + HOST_OVERHEAD_MIB) * MIB
}

#[cfg(test)]
#[path = "sizing_test.rs"]
mod tests;
