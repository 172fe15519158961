//! Where the specification and the types of the oci-spec crate differ: names that the crate does not know, a section that
//! it leaves out, and mistakes that runc accepts.

use oci_spec::runtime::Capability;
use serde::Deserialize;
use serde_json::Value;

/// The five sets of `process.capabilities`.
const SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

/// Flags of `process.scheduler` by the specification's name and by the crate's.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// Rewrites a `process` that the crate refuses into the form that it accepts; for what is left out, a warning is added
/// to `warnings`.
pub fn adapt_process(process: &mut Value, warnings: &mut Vec<String>) {
    if let Some(capabilities) = process.get_mut("capabilities") {
        drop_unknown_capabilities(capabilities, warnings);
    }
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        if let Some((_, name)) = SCHEDULER_FLAGS.iter().find(|(known, _)| flag == known) {
            *flag = (*name).into();
        }
    }
    if let Some(affinity) = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut) {
        affinity.retain(|_, list| list != "");
    }
}

/// Drops capabilities that are not known, as runc does: configurations may name capabilities of newer kernels.
fn drop_unknown_capabilities(capabilities: &mut Value, warnings: &mut Vec<String>) {
    let mut unknown = Vec::new();
    for set in SETS {
        let Some(names) = capabilities.get_mut(set).and_then(Value::as_array_mut) else { continue };
        names.retain(|name| {
            let Value::String(text) = name else { return true };
            let known = Capability::deserialize(&Value::String(text.clone())).is_ok();
            if !known && !unknown.contains(text) {
                unknown.push(text.clone());
            }
            known
        });
    }
    if !unknown.is_empty() {
        warnings.push(format!("process.capabilities: ignored unknown capabilities: {}", unknown.join(", ")));
    }
}

/// The part of config.json that the crate leaves out.
#[derive(Debug, Default, Deserialize)]
pub struct Rest {
    #[serde(default)]
    vm: Option<RestOfVm>,
}

#[derive(Debug, Default, Deserialize)]
struct RestOfVm {
    #[serde(default, rename = "hwConfig")]
    hw_config: Option<HwConfig>,
}

impl Rest {
    /// `vm.hwConfig`
    pub fn hw_config(self) -> Option<HwConfig> {
        self.vm?.hw_config
    }
}

/// `vm.hwConfig` (runtime-spec config-vm "HWConfig Object").
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HwConfig {
    /// A device tree for the VM.
    pub device_tree: Option<String>,
    /// CPUs of the VM.
    pub vcpus: Option<u32>,
    /// Memory of the VM, in bytes.
    pub memory: Option<u64>,
    /// Devices of the host's device tree.
    pub dtdevs: Vec<String>,
    /// Memory of the host's devices.
    pub iomems: Vec<IoMem>,
    /// Interrupts of the host's devices.
    pub irqs: Vec<u32>,
}

/// One entry of `vm.hwConfig.iomems`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IoMem {
    /// Guest frame number.
    #[serde(default, rename = "firstGFN")]
    pub first_gfn: Option<u64>,
    /// Machine frame number.
    #[serde(rename = "firstMFN")]
    pub first_mfn: u64,
    /// Number of frames.
    #[serde(rename = "nrMFNs")]
    pub count: u64,
}
