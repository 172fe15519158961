//! How often a guest may have the relay do something: as a workload does, but not as often as a loop can.

use std::time::{Duration, Instant};

/// Turns that can be taken at once, after a time without any.
const BURST: u32 = 128;

/// Between two turns in the long run.
const INTERVAL: Duration = Duration::from_millis(2);

/// A leaking bucket of turns.
#[derive(Debug)]
pub struct Pace {
    /// When the bucket will be empty.
    empty: Instant,
}

impl Pace {
    /// One with an empty bucket.
    pub fn new(now: Instant) -> Self {
        Self { empty: now }
    }

    /// Takes a turn; how long to wait before it.
    pub fn turn(&mut self, now: Instant) -> Duration {
        self.empty = self.empty.max(now) + INTERVAL;
        (self.empty - now).saturating_sub(INTERVAL * BURST)
    }
}

#[cfg(test)]
#[path = "pace_test.rs"]
mod tests;
