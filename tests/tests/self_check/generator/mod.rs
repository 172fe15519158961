//! Valid configurations from seeds: one strategy per aspect, each of which sets properties of its own.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;
use stockade_tests::compared::COMPARED;

use crate::fixture;

mod mounts;
mod namespaces;
mod process;
mod resources;
mod scheduling;
mod seccomp;

/// Values by their JSON paths.
type Settings = Vec<(&'static str, Value)>;

/// What is compared, and no configuration has it: a guest of one NUMA node has little of it.
const UNGENERATED: &str = "linux.memoryPolicy.";

/// What the configurations are about, by the self-check's names: together they have all of it. A property that
/// stockade has learned to apply gets a line in [`COMPARED`] and a strategy in [`aspects`].
pub fn properties() -> impl Iterator<Item = &'static str> {
    COMPARED.iter().copied().filter(|entry| !entry.starts_with(UNGENERATED))
}

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
