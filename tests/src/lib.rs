//! What the end-to-end tests share: bundles of real programs, the `stockade` binary as its callers run it, and a
//! picture of the host that shows what a container has left behind.
//!
//! The tests run as root where microVMs run: on hardware KVM, or in the lab (`tests/run` decides).

pub mod bundle;
pub mod cli;
pub mod compared;
pub mod crio;
pub mod engine;
pub mod hanging;
pub mod host;
pub mod hostile;
pub mod killer;
pub mod kubernetes;
pub mod netns;
pub mod shell;
pub mod terminal;
pub mod workload;
