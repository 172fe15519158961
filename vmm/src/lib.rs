//! stockade's VMM: one KVM microVM, its devices, nothing else.

pub mod virtio;
