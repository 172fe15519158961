//! How much RAM a VM gets.
//!
//! The container's memory limit plus what the guest's kernel and agent need; without a limit the configured default; and
//! never more than the nearest limit of the host's cgroups leaves after the VMM's own share.

const MIB: u64 = 1 << 20;

/// Guest kernel, agent and page cache of its own, in MiB.
pub const GUEST_OVERHEAD_MIB: u64 = 96;

/// One part in this many of guest RAM goes to the kernel's page descriptors (64 bytes per 4096).
const PAGE_DESCRIPTORS: u64 = 64;

/// What the VMM and the relay may use on the host besides guest RAM, in MiB: page tables, descriptors and inodes of the
/// file server, buffers.
pub const HOST_OVERHEAD_MIB: u64 = 128;

/// Least RAM that a guest boots in, in MiB.
pub const LEAST_MIB: u64 = 128;

/// Most RAM that a guest can have, in MiB: what the VMM's configuration can say.
const MOST_MIB: u64 = u32::MAX as u64;

/// The host leaves too little memory.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "no memory for the VM: the host leaves it {limit_mib} MiB, but a guest needs {LEAST_MIB} MiB and the VMM \
     {HOST_OVERHEAD_MIB} MiB; raise memory.max of the cgroups above the container's"
)]
pub struct TooLittle {
    limit_mib: u64,
}

/// Guest RAM, in MiB.
///
/// # Errors
/// [`TooLittle`].
pub fn guest_mib(
    container_limit: Option<u64>,
    default_mib: u32,
    host_limit: Option<u64>,
) -> Result<u32, TooLittle> {
    let wanted = match container_limit {
        Some(limit) => {
            let limit_mib = limit.div_ceil(MIB);
            limit_mib.saturating_add(limit_mib / PAGE_DESCRIPTORS).saturating_add(GUEST_OVERHEAD_MIB)
        }
        None => default_mib.into(),
    };
    let available = host_limit.map_or(MOST_MIB, |limit| (limit / MIB).saturating_sub(HOST_OVERHEAD_MIB));
    if available < LEAST_MIB {
        return Err(TooLittle { limit_mib: host_limit.unwrap_or_default() / MIB });
    }
    Ok(wanted.max(LEAST_MIB).min(available).min(MOST_MIB) as u32)
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
