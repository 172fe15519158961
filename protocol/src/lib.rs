//! The messages that cross stockade's process boundaries, and nothing else.
//!
//! | boundary | module | trust |
//! |---|---|---|
//! | runtime, relay ↔ agent (vsock) | [`agent`], [`container`], [`network`] | the host does not trust the guest |
//! | VMM ↔ agent, in clones of a template | [`renewal`] | as above |
//! | runtime, relay ↔ VMM (inherited descriptors, a UNIX socket) | [`vmm`] | the VMM may have been taken over by its guest |
//!
//! Everything is framed by [`frame`]: a length, then postcard. postcard has no field evolution and pods outlive
//! upgrades, so a message that has been released never changes. What is new is a variant at the end of its enum, or a type beside
//! the old one, and a new [`agent::VERSION`] or [`vmm::VERSION`]; a variant that is no longer sent keeps its place. `tests/wire.rs`
//! compares the bytes of every message with those of `tests/golden`.

pub mod agent;
pub mod call;
pub mod container;
pub mod frame;
pub mod network;
pub mod renewal;
pub mod settings;
pub mod share_options;
pub mod vmm;
