//! The limits of a container, collected from all properties.

use std::path::PathBuf;

use super::number_list;
use crate::vm::sizing::Demand;

/// The plan of the host's cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCgroup {
    /// `linux.cgroupsPath`; empty for the default path.
    pub path: PathBuf,
    /// Files to write: (`cpu.weight`, `100`) …
    pub values: Vec<(&'static str, String)>,
}

impl HostCgroup {
    /// Number of CPUs in its CPU set, if it has one.
    pub fn cpus(&self) -> Option<u8> {
        let (_, list) = self.values.iter().rev().find(|(file, _)| *file == "cpuset.cpus")?;
        let words = number_list::parse(list).ok()?;
        let count: u32 = words.iter().map(|word| word.count_ones()).sum();
        Some(count.clamp(1, u8::MAX.into()) as u8)
    }
}

/// The limits of a container.
#[derive(Debug, Default)]
pub struct Limits {
    /// Files of the guest's cgroup, in the order in which they are written.
    pub guest: Vec<(String, String)>,
    /// The host's cgroup.
    pub host: HostCgroup,
    /// What the limits ask of the VM.
    pub demand: Demand,
}

/// Whether a text is a size of huge pages, such as `2MB`.
pub fn is_page_size(size: &str) -> bool {
    let digits = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB"));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
