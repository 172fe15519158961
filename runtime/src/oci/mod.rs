//! The host's side of the runtime specification: the bundle, IDs of containers, hooks, and the names of users in a root
//! file system.

pub mod bundle;
pub mod container_id;
pub mod hooks;
pub mod pause;
mod specification;
pub mod users;

pub use specification::HwConfig;

/// The newest runtime specification that this program knows. oci-spec's own constant is older.
pub const SPEC_VERSION: &str = "1.3.0";
