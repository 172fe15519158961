//! Templates: a guest is saved when its agent is ready, and others begin as it was.
//!
//! ```text
//!  boot ─▶ agent ready, memory plugged ─▶ vCPUs and devices at rest ─▶ state and RAM in two files
//!                                                                          │
//!  RAM mapped copy-on-write ─▶ chips, vCPUs, clock ─▶ devices ─▶ KVM_RUN ─▶ agent renewed ─▶ agent ready
//! ```
//!
//! | module | is |
//! |---|---|
//! | [`format`] | the state file's frame, and its parser |
//! | [`state`] | what is in it, and what must be true of it |
//! | [`ram`] | which pages hold something, and where they are in the other file |
//! | [`save`], [`restore`] | the steps |
//!
//! A template is taken before there is a container, a share or a connection: there is nothing in it of anybody. Its files come as
//! descriptors of the runtime, which looks after whose they are; a clone has them read-only, and its writes are its own.

mod format;
mod ram;
mod restore;
mod save;
mod state;

use std::fs::File;

pub use self::format::{Checksum, Invalid, parse};
pub use self::ram::Fresh;
pub use self::restore::{Refusal, Restored, renewal, restore};
pub use self::save::{Error, Saving, save, settle};
pub use self::state::State;

/// The files of a template.
#[derive(Debug)]
pub struct Files {
    /// All but RAM.
    pub state: File,
    /// RAM.
    pub ram: File,
}

#[cfg(any(test, feature = "fuzz"))]
pub use self::format::framed;

#[cfg(test)]
#[path = "template_test.rs"]
mod tests;
