//! VMM ↔ agent: what makes a clone of a template differ from the others.
//!
//! A template's guest is started with [`PARAMETER`]: its agent makes ready all but the shared files, connects to
//! [`crate::agent::READY_PORT`] once, and listens on [`PORT`]. Then the guest is saved. In each clone the VMM connects to that port and
//! sends one framed [`Renewal`]. The agent takes it, connects to [`crate::agent::READY_PORT`] again, and is from then on like any
//! other. No connection of the host reaches the agent before that, so that no container can begin without it.
//!
//! Both sides are of one build: a template is used by the build that has made it, and by no other.

use serde::{Deserialize, Serialize};

use crate::agent::MAGIC;

/// vsock port on which the agent of a template's guest listens.
pub const PORT: u32 = 2;

/// Name of the kernel's parameter by which a guest knows that it becomes a template. Without a dot, so that the kernel hands it to
/// its first process as part of the environment.
pub const PARAMETER: &str = "stockade_template";

/// What a clone gets of its own.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// Random bytes of the host, for this clone alone.
    pub entropy: [[u8; 32]; 2],
    /// The host's time: seconds since 1970.
    pub seconds: u64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

impl Renewal {
    /// A renewal with this entropy; `now` is the time since 1970.
    pub fn new(entropy: [[u8; 32]; 2], now: std::time::Duration) -> Self {
        Self { magic: MAGIC, entropy, seconds: now.as_secs(), nanoseconds: now.subsec_nanos() }
    }
}

/// Leaves the entropy out, so that no log has it.
impl std::fmt::Debug for Renewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewal").field("seconds", &self.seconds).finish_non_exhaustive()
    }
}
