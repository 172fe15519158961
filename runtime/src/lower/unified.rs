//! `linux.resources.unified`: files of cgroup v2 by their names.
//!
//! Files about the host's CPUs, memory nodes and disks are for the host's cgroup, where the VMM is; the others limit
//! the guest's processes.

use std::collections::HashMap;

use super::limits::{self, Limits};
use super::number_list;
use crate::oci::bundle::SpecError;
use crate::text::bytes;

/// Files of the host's cgroup.
const HOST: [&str; 9] = [
    "cpuset.cpus",
    "cpuset.cpus.exclusive",
    "cpuset.cpus.partition",
    "cpuset.mems",
    "io.bfq.weight",
    "io.latency",
    "io.max",
    "io.prio.class",
    "io.weight",
];

/// Files of the guest's cgroup, besides those of huge pages.
const GUEST: [&str; 17] = [
    "cgroup.max.depth",
    "cgroup.max.descendants",
    "cpu.idle",
    "cpu.max",
    "cpu.max.burst",
    "cpu.weight",
    "cpu.weight.nice",
    "memory.high",
    "memory.low",
    "memory.max",
    "memory.min",
    "memory.oom.group",
    "memory.swap.high",
    "memory.swap.max",
    "memory.zswap.max",
    "memory.zswap.writeback",
    "pids.max",
];

/// Adds the files.
///
/// # Errors
/// A name that is not a file that sets a limit, or a value that the file cannot hold.
pub fn lower(map: &HashMap<String, String>, limits: &mut Limits) -> Result<(), SpecError> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort();
    for (file, value) in entries {
        let error = |problem: String| SpecError::new(format!("linux.resources.unified[{file:?}]"), problem);
        let value = value.trim();
        if value.is_empty() || value.contains('\0') {
            return Err(error(format!("{value:?} is not a value that a file can hold")));
        }
        if let Some(name) = HOST.iter().find(|name| *name == file) {
            if matches!(*name, "cpuset.cpus" | "cpuset.mems") {
                number_list::parse(value).map_err(error)?;
            }
            // The kernel takes one line in one write.
            for line in value.lines() {
                limits.host.values.push((name, line.trim().to_owned()));
            }
            if *name == "io.weight" && !value.contains(':') {
                limits.guest.push((file.clone(), value.to_owned()));
            }
        } else if GUEST.contains(&file.as_str()) || is_of_huge_pages(file) {
            if file == "memory.max" {
                limits.demand.memory = match value {
                    "max" => None,
                    amount => Some(
                        bytes::parse_limit(amount)
                            .ok()
                            .and_then(|bytes| u64::try_from(bytes).ok())
                            .ok_or_else(|| {
                                error(format!("{amount:?} is neither a number of bytes nor max"))
                            })?,
                    ),
                };
            }
            limits.guest.push((file.clone(), value.to_owned()));
        } else {
            let problem = "is not a file of cgroup v2 that limits the guest's processes or their VM";
            return Err(error(problem.to_owned()));
        }
    }
    Ok(())
}

/// `hugetlb.2MB.max` or `hugetlb.2MB.rsvd.max`
fn is_of_huge_pages(file: &str) -> bool {
    let size = file.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(".max"));
    size.is_some_and(|size| limits::is_page_size(size.strip_suffix(".rsvd").unwrap_or(size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowered(entries: &[(&str, &str)]) -> Result<Limits, SpecError> {
        let map = entries.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect();
        let mut limits = Limits::default();
        lower(&map, &mut limits)?;
        Ok(limits)
    }

    #[test]
    fn the_hosts_and_the_guests_files_are_told_apart() {
        let limits = lowered(&[
            ("memory.max", "64M"),
            ("memory.high", "1000000"),
            ("pids.max", "max"),
            ("hugetlb.2MB.rsvd.max", "0"),
            ("cpuset.cpus", "0"),
            ("io.max", "8:0 rbps=1\n8:16 wbps=2\n"),
            ("io.weight", "default 50"),
        ])
        .unwrap();
        let host: Vec<_> = limits.host.values.iter().map(|(file, value)| (*file, value.as_str())).collect();
        let expected = [
            ("cpuset.cpus", "0"),
            ("io.max", "8:0 rbps=1"),
            ("io.max", "8:16 wbps=2"),
            ("io.weight", "default 50"),
        ];
        assert_eq!(host, expected);
        let guest: Vec<_> = limits.guest.iter().map(|(file, _)| file.as_str()).collect();
        assert_eq!(guest, ["hugetlb.2MB.rsvd.max", "io.weight", "memory.high", "memory.max", "pids.max"]);
        assert_eq!(limits.demand.memory, Some(64 << 20));
    }

    #[test]
    fn mistakes_are_named() {
        for (file, value) in [
            ("../x.y", "1"),
            ("memory.max/x", "1"),
            ("memory.maximum", "1"),
            ("cgroup.procs", "1"),
            ("cgroup.freeze", "1"),
            ("rdma.max", "mlx4_0 hca_handle=2"),
            ("hugetlb.big.max", "1"),
            ("memory.high", ""),
            ("memory.max", "many"),
            ("cpuset.cpus", "all"),
        ] {
            let error = lowered(&[(file, value)]).unwrap_err();
            assert_eq!(error.path, format!("linux.resources.unified[{file:?}]"), "{value}");
        }
    }
}
