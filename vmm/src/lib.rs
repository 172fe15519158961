//! stockade's VMM: one KVM microVM, its devices, nothing else.
//!
//! `main.rs` has the sequence from the inherited descriptors to the running guest; each step is a module here.

pub mod activation;
pub mod adjustable;
pub mod boot;
pub mod bus;
mod closer;
pub mod console;
pub mod control;
pub mod devices;
pub mod error;
pub mod faults;
pub mod file_server;
pub mod files;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod greeting;
pub mod hotplug;
pub mod inherited;
pub mod isolation;
pub mod machine;
pub mod memory;
pub mod ram;
pub mod seccomp;
pub mod stats;
pub mod status;
pub mod template;
mod threads;
pub mod vcpu;
pub mod virtio;
