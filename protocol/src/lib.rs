//! The messages that cross stockade's process boundaries, and nothing else.
//!
//! | boundary | module | trust |
//! |---|---|---|
//! | runtime, relay ↔ agent (vsock) | [`agent`], [`container`], [`network`] | the host does not trust the guest |
//! | runtime, relay ↔ VMM (inherited descriptors, a UNIX socket) | [`vmm`] | the VMM may have been taken over by its guest |
//!
//! Everything is framed by [`frame`]: a length, then postcard. postcard has no field evolution and pods outlive
//! upgrades, so a message that has been released never changes; a change is a new enum beside the old one and a
//! new [`agent::VERSION`]. `tests/wire.rs` fixes the bytes.

pub mod agent;
pub mod container;
pub mod frame;
pub mod network;
pub mod vmm;
