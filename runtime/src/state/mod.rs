//! The record of a container: `ROOT/ID/state.json`, beside the VMM's sockets.
//!
//! The file is replaced atomically, and names a resource before that exists, so that a command that finds the file after a
//! crash can remove everything. It holds the state to which commands have brought the container; whether the container
//! lives, the relay shows. Commands that change a container lock its directory, so two of them take turns.

mod directory;
mod error;
mod json;
mod known_namespace;
mod network_file;
mod owner;
pub mod pid_file;
mod record;
pub mod role;
pub mod sandbox;

pub use directory::{Directory, METRICS_SOCKET, Root};
pub use error::ContainerError;
pub use record::{Record, boot_id};

#[cfg(test)]
pub use record::tests::record as fixture;
