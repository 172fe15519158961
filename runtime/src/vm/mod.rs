//! The microVM of a container, seen from the runtime: starting `stockade-vmm`, and following it until its agent is
//! ready.
//!
//! ```text
//! launch ─→ Started ─→ Isolated ─→ Loaded ─→ Running ─→ DriverReady ─→ AgentConnected ─→ ready
//!               └ Failed, Ended, its process gone, or nothing new for too long: an error with stage and console
//! ```

pub mod agent;
mod control;
mod core_scheduling;
mod error;
mod exchange;
mod files;
mod launch;
mod mounted;
mod patience;
mod placement;
mod shared;
pub mod shares;
pub mod sizing;
mod sockets;
pub mod template;
mod tree;
mod vmm_user;
mod wait;
mod watch;

pub use control::Control;
pub use error::{MachineError, shown};
pub use files::Files;
pub use launch::Launch;
pub use placement::Placement;
pub use shared::{Shared, Vm};
pub use sockets::{AGENT_SOCKET, CONTROL_SOCKET, CONTROL_SOCKET_OF_0_1, FILES_SOCKET, SOCKETS, is_of_0_1};
pub use stockade_protocol::vmm::call;
pub use tree::{IdMap, Tree};
pub use wait::{Wait, wait_for};
pub use watch::{DIED_SILENTLY, Machine};
