//! How long a command waits for a VM that is silent.

use std::time::Duration;

use crate::sys::process::{Pidfd, waited_for_processor};

/// What the VM has not done after this time has failed in any case: a guest that only keeps its processor busy does nothing.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(240);

/// A VM that has waited for a processor for one in so many seconds is late because the host is busy.
const STARVED: u32 = 4;

/// Tells a VM that is late because the host is busy from one that hangs.
#[derive(Debug, Default)]
pub(super) struct Starvation {
    /// How long the VM had waited for a processor when this was last asked.
    waited: Duration,
}

impl Starvation {
    /// Whether the threads of this VMM have waited for a processor for a [`STARVED`]th of `time` or more since the last call, or since
    /// the VM began.
    pub fn has_delayed(&mut self, vmm: &Pidfd, time: Duration) -> bool {
        let now = waited_for_processor(vmm);
        now.saturating_sub(std::mem::replace(&mut self.waited, now)) >= time / STARVED
    }
}
