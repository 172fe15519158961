//! A kubelet's half of the CRI: calls, streams, and pods as it asks for them.

// Each test file uses its part.
#![allow(dead_code, unused_imports)]

mod client;
mod pod;
mod stream;

pub use client::{Cri, Refused};
pub use pod::{Pod, WEB_ARGS, container_config};
pub use stream::{Forward, Streams};
