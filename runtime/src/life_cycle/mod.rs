//! The life of a container, as its commands share it.
//!
//! ```text
//!            create                start              the process ends
//!  (nothing) ─────→ creating ─→ created ─────→ running ─────→ stopped
//!      ↑                 └─────────┴───── delete ┴─ --force ──────┘
//!      └────────────────────────────────────┘
//! ```
//!
//! Created and running containers may be paused, until they are resumed or killed.

mod create;
mod creation;
mod disks;
mod exec;
mod foreground;
mod from_caller;
mod network;
mod network_watch;
mod remove;
mod request;
mod resize;
mod services;
mod start;
mod status;
mod survey;
mod update;
mod visit;

pub use create::create;
pub use exec::{Exec, exec};
pub use foreground::attend;
pub use remove::{force_remove, kill, remove};
pub use request::{Created, Request};
pub use start::start;
pub use status::{Status, answers, status};
pub use survey::survey;
pub use update::update;
pub use visit::{ANSWERS_WITHIN, Visit, explain, no_longer_runs};
