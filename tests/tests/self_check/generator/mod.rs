//! Valid configurations from seeds: one strategy per aspect, each of which sets properties of its own.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use crate::fixture;

mod mounts;
mod namespaces;
mod process;
mod resources;
mod scheduling;
mod seccomp;

/// Values by their JSON paths.
type Settings = Vec<(&'static str, Value)>;

/// What the configurations are about, by the self-check's names: together they have all of it. A property that
/// stockade has learned to apply gets a line here and a strategy in [`aspects`].
pub const PROPERTIES: &[&str] = &[
    "domainname",
    "hostname",
    "linux.devices",
    "linux.gidMappings",
    "linux.maskedPaths",
    "linux.namespaces",
    "linux.personality.domain",
    "linux.readonlyPaths",
    "linux.resources.blockIO.weight",
    "linux.resources.cpu.burst",
    "linux.resources.cpu.idle",
    "linux.resources.cpu.period",
    "linux.resources.cpu.quota",
    "linux.resources.cpu.shares",
    "linux.resources.devices",
    "linux.resources.hugepageLimits",
    "linux.resources.memory.limit",
    "linux.resources.memory.reservation",
    "linux.resources.memory.swap",
    "linux.resources.pids.limit",
    "linux.resources.unified",
    "linux.rootfsPropagation",
    "linux.seccomp.architectures",
    "linux.seccomp.defaultAction",
    "linux.seccomp.defaultErrnoRet",
    "linux.seccomp.syscalls",
    "linux.sysctl",
    "linux.timeOffsets",
    "linux.uidMappings",
    "mounts[].destination",
    "mounts[].options",
    "mounts[].source",
    "mounts[].type",
    "process.args",
    "process.capabilities.ambient",
    "process.capabilities.bounding",
    "process.capabilities.effective",
    "process.capabilities.inheritable",
    "process.capabilities.permitted",
    "process.consoleSize",
    "process.cwd",
    "process.env",
    "process.execCPUAffinity.final",
    "process.ioPriority",
    "process.noNewPrivileges",
    "process.oomScoreAdj",
    "process.rlimits",
    "process.scheduler",
    "process.terminal",
    "process.user.additionalGids",
    "process.user.gid",
    "process.user.uid",
    "process.user.umask",
    "root.readonly",
];

/// One strategy per aspect.
fn aspects() -> Vec<BoxedStrategy<Settings>> {
    vec![
        process::program().boxed(),
        process::user().boxed(),
        process::capabilities().boxed(),
        process::rlimits().boxed(),
        process::terminal().boxed(),
        scheduling::scheduling().boxed(),
        namespaces::namespaces().boxed(),
        mounts::root().boxed(),
        mounts::mounts().boxed(),
        resources::devices().boxed(),
        resources::memory().boxed(),
        resources::cpu().boxed(),
        resources::other_resources().boxed(),
        seccomp::seccomp().boxed(),
        mounts::paths_and_sysctl().boxed(),
    ]
}

/// The configuration of a seed.
pub fn config(seed: u64) -> Value {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let settings = aspects().new_tree(&mut runner).expect("a configuration").current();
    let mut config = fixture::base();
    for (path, value) in settings.into_iter().flatten() {
        match path {
            "mounts" => {
                config["mounts"]
                    .as_array_mut()
                    .expect("mounts")
                    .extend(value.as_array().expect("list").clone());
            }
            _ => fixture::set(&mut config, path, value),
        }
    }
    let linux = &mut config["linux"];
    let has_ipc =
        linux["namespaces"].as_array().expect("namespaces").iter().any(|entry| entry["type"] == "ipc");
    // The generated ones of the kernel belong to an IPC namespace, without which they are refused.
    if let (false, Some(sysctl)) = (has_ipc, linux["sysctl"].as_object_mut()) {
        sysctl.retain(|name, _| !name.starts_with("kernel."));
    }
    config
}

/// The properties that are there.
fn given<const N: usize>(settings: [(&'static str, Option<Value>); N]) -> Settings {
    settings.into_iter().filter_map(|(path, value)| Some((path, value?))).collect()
}
