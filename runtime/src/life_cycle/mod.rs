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

mod abandoned;
mod create;
mod creation;
mod disks;
mod exec;
mod figures;
mod for_each;
mod foreground;
mod freeze;
mod from_caller;
mod handle;
mod network;
mod network_watch;
mod rehearsal;
mod remove;
mod request;
mod resize;
mod resolver;
mod services;
mod settings;
mod signal;
mod start;
mod status;
mod update;

pub use abandoned::remove_abandoned;
pub use create::create;
pub use exec::{Exec, exec};
pub use for_each::for_each;
pub use foreground::attend;
pub use freeze::{pause, resume};
pub use handle::{ANSWERS_WITHIN, Handle, explain, no_longer_runs};
pub use rehearsal::rehearse;
pub use remove::{force_remove, remove};
pub use request::{Created, Request};
pub use signal::signal;
pub use start::start;
pub use status::{Status, answers, status};
pub use update::update;
