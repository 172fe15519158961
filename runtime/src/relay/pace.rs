//! Limits how often a guest can make the relay do something: often enough for a workload, but not as often as a loop
//! could.

use std::time::{Duration, Instant};

/// Number of turns that can be taken at once, after a time without turns.
const BURST: u32 = 128;

/// Average time between two turns in the long run.
const INTERVAL: Duration = Duration::from_millis(2);

/// A leaking bucket of turns.
#[derive(Debug)]
pub struct Pace {
    /// The moment at which the bucket will be empty.
    empty: Instant,
}

impl Pace {
    /// Starts with an empty bucket.
    pub fn new(now: Instant) -> Self {
        Self { empty: now }
    }

    /// Takes a turn; returns how long to wait before it.
    pub fn turn(&mut self, now: Instant) -> Duration {
        self.empty = self.empty.max(now) + INTERVAL;
        (self.empty - now).saturating_sub(INTERVAL * BURST)
    }
}

#[cfg(test)]
#[path = "pace_test.rs"]
mod tests;
