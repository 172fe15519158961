//! What a whole pod needs, by its annotations: the sum of its containers' limits, known when its sandbox is created.
//!
//! containerd gives numbers, CRI-O its JSON of the CRI's `LinuxContainerResources`. 0 means no limit, and so does a
//! negative quota. Only the keys of the engine count that has written the role. A pod's author can still make CRI-O
//! write another size, but the host's cgroups above the pod's limit it.

use serde::Deserialize;

use super::cgroup::DEFAULT_PERIOD;
use crate::oci::bundle::SpecError;
use crate::state::role::{Annotations, Engine};
use crate::vm::sizing::{self, Demand, Pod};

const CONTAINERD_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
const CONTAINERD_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
const CONTAINERD_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";

/// CRI-O's names, and those that newer versions have.
const CRIO_RESOURCES: [&str; 2] = ["io.kubernetes.cri-o.PodLinuxResources", "pod-linux-resources.crio.io"];
const CRIO_OVERHEAD: [&str; 2] = ["io.kubernetes.cri-o.PodLinuxOverhead", "pod-linux-overhead.crio.io"];

/// CRI's `LinuxContainerResources`, the fields that matter here.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    cpu_period: i64,
    cpu_quota: i64,
    memory_limit_in_bytes: i64,
}

impl Resources {
    fn demand(self) -> Demand {
        let above_zero = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
        let period = above_zero(self.cpu_period).unwrap_or(DEFAULT_PERIOD);
        Demand {
            memory: above_zero(self.memory_limit_in_bytes),
            cpus: above_zero(self.cpu_quota).map(|quota| sizing::cpus(quota, period)),
        }
    }
}

/// Reads the annotations.
///
/// # Errors
/// An annotation that does not have its engine's format.
pub fn lower(annotations: Option<&Annotations>) -> Result<Pod, SpecError> {
    match (Engine::of(annotations), annotations) {
        (Some(Engine::Containerd), Some(annotations)) => containerd(annotations),
        (Some(Engine::Crio), Some(annotations)) => crio(annotations),
        _ => Ok(Pod::default()),
    }
}

fn containerd(annotations: &Annotations) -> Result<Pod, SpecError> {
    let number = |name: &str| match annotations.get(name) {
        None => Ok(0),
        Some(text) => text.parse().map_err(|_| wrong(name, text, "a number")),
    };
    let resources = Resources {
        cpu_period: number(CONTAINERD_PERIOD)?,
        cpu_quota: number(CONTAINERD_QUOTA)?,
        memory_limit_in_bytes: number(CONTAINERD_MEMORY)?,
    };
    Ok(Pod { demand: resources.demand(), overhead: None })
}

fn crio(annotations: &Annotations) -> Result<Pod, SpecError> {
    let json = |names: [&str; 2]| {
        let found = names.into_iter().find_map(|name| Some((name, annotations.get(name)?)));
        found.map_or(Ok(None), |(name, text)| {
            serde_json::from_str::<Option<Resources>>(text)
                .map_err(|_| wrong(name, text, "JSON of the CRI's LinuxContainerResources"))
        })
    };
    let demand = json(CRIO_RESOURCES)?.unwrap_or_default().demand();
    let overhead = json(CRIO_OVERHEAD)?.and_then(|overhead| overhead.demand().memory);
    Ok(Pod { demand, overhead })
}

fn wrong(name: &str, text: &str, expected: &str) -> SpecError {
    SpecError::new(format!("annotations[{name:?}]"), format!("{text:?} is not {expected}"))
}

#[cfg(test)]
#[path = "pod_size_test.rs"]
mod tests;
