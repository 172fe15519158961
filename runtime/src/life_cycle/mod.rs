//! The life of a container, as its commands share it.
//!
//! ```text
//!            create                start              the process ends
//!  (nothing) ─────→ creating ─→ created ─────→ running ─────→ stopped
//!      ↑                 └─────────┴───── delete ┴─ --force ──────┘
//!      └────────────────────────────────────┘
//! ```

mod create;
mod remove;
mod start;
mod status;

pub use create::{Created, Request, create};
pub use remove::{force_remove, remove};
pub use start::start;
pub use status::{Status, status};
