//! A kubelet's half of the CRI: calls, streams, and pods as it asks for them.

mod client;
mod pod;
mod stream;

pub use client::{Cri, Refused};
pub use pod::{Pod, WEB_ARGS, container_config};
pub use stream::{Forward, Streams};
