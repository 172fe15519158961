//! What the fuzz targets do with their input (`fuzz/README.md`): each plays a guest's agent, a VMM that its guest has taken
//! over, or a pod's author. Nothing of this is in the command that is installed.
//!
//! A target panics where the runtime does what it must not do.

mod agent;
mod config;
mod forward;
mod frames;
mod metrics;
mod peer;
mod relay;
mod vmm;

/// A target's name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets of this crate.
pub const TARGETS: [Target; 7] = [
    ("agent", agent::run),
    ("config", config::run),
    ("forward", forward::run),
    ("frames", frames::run),
    ("metrics", metrics::run),
    ("relay", relay::run),
    ("vmm", vmm::run),
];

#[cfg(test)]
#[path = "corpus_test.rs"]
mod tests;
