//! How long a command waits for a VM that is silent.

use std::time::Duration;

use crate::sys::deadline::Deadline;
use crate::sys::process::{Pidfd, waited_for_processor};

/// What the VM has not done after this time has failed in any case: a guest that only keeps its processor busy does nothing.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(240);

/// A VM that has waited for a processor for one in so many seconds is late because the host is busy.
const STARVED: u32 = 4;

/// After this time without an answer, the VM's share of the processors is observed.
const IS_LATE: Duration = Duration::from_secs(1);

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

/// The time for an answer of a guest that runs. It answers at once, but on a host whose processors are all busy that takes
/// many times as long: the time begins anew if that is what delays the VM, up to [`MAX_TIMEOUT`] in all.
#[derive(Debug)]
pub(super) struct Patience {
    timeout: Duration,
    left: Duration,
    waited: Duration,
    /// What is known of a VM that is late.
    starvation: Option<Starvation>,
}

impl Patience {
    /// For a time of which this much is left.
    pub fn new(timeout: Duration, left: Duration) -> Self {
        Self { timeout, left, waited: Duration::ZERO, starvation: None }
    }

    /// The time that has to pass without anything happening.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Until when to wait before [`Self::goes_on`] is asked.
    pub fn stretch(&self) -> Deadline {
        Deadline::within(match self.starvation {
            Some(_) => self.left,
            None => self.left.min(IS_LATE.saturating_sub(self.waited)),
        })
    }

    /// Counts time that has passed.
    pub fn spend(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
        self.waited = self.waited.saturating_add(time);
    }

    /// Whether there is more time after a stretch for this VMM, if it is known.
    pub fn goes_on(&mut self, vmm: Option<&Pidfd>) -> bool {
        let is_starved =
            |starvation: &mut Starvation, time| vmm.is_some_and(|vmm| starvation.has_delayed(vmm, time));
        if !self.left.is_zero() {
            is_starved(self.starvation.insert(Starvation::default()), Duration::ZERO);
            return true;
        }
        let observed = self.timeout.saturating_sub(IS_LATE);
        let more = self.waited < MAX_TIMEOUT
            && self.starvation.as_mut().is_some_and(|starvation| is_starved(starvation, observed));
        if more {
            self.left = self.timeout;
        }
        more
    }
}

#[cfg(test)]
#[path = "patience_test.rs"]
mod tests;
