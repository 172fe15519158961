//! The order of requests: a share has only a few requests at the file server at a time, and its other requests wait
//! here.
//!
//! So a file that blocks (a hung network file system, /proc/kmsg) holds up its own container only. A waiting request
//! keeps its descriptors in the driver's ring, which is large but limited: if a share makes no progress and has a large
//! part of the ring, its last requests are answered with errors.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Largest number of requests of one share that the file server has at a time.
pub const IN_FLIGHT: usize = 4;

/// A share that has had no reply for this time makes no progress.
pub const STUCK_AFTER: Duration = Duration::from_secs(2);

/// The requests of all shares; `T` is a waiting request.
#[derive(Debug)]
pub struct Turns<T> {
    /// The shares that have requests, at the server or waiting.
    shares: Vec<Share<T>>,
    /// How many requests may wait altogether.
    most: usize,
    /// How many requests wait.
    waiting: usize,
    /// Index at which the search for the next request begins, so that every share has its turn.
    next: usize,
}

#[derive(Debug)]
struct Share<T> {
    number: u32,
    in_flight: usize,
    waiting: VecDeque<T>,
    progress: Option<Instant>,
}

impl<T> Turns<T> {
    /// Without any request yet; the ring has room for `most` requests.
    pub fn new(most: usize) -> Self {
        Self { shares: Vec::new(), most, waiting: 0, next: 0 }
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Counts a request of this share as one that the server has; false if the share has as many there as it may.
    pub fn take(&mut self, number: u32) -> bool {
        let share = self.share(number);
        let may = share.in_flight < IN_FLIGHT && share.waiting.is_empty();
        share.in_flight += usize::from(may);
        may
    }

    /// Adds a request that has to wait before it may go to the server.
    pub fn wait(&mut self, number: u32, request: T, now: impl FnOnce() -> Instant) {
        self.waiting += 1;
        let share = self.share(number);
        share.waiting.push_back(request);
        if share.progress.is_none() {
            share.progress = Some(now());
        }
    }

    /// Counts a reply of the server to a request of this share.
    pub fn done(&mut self, number: u32, now: impl FnOnce() -> Instant) {
        let Some(index) = self.shares.iter().position(|share| share.number == number) else { return };
        let share = &mut self.shares[index];
        share.in_flight = share.in_flight.saturating_sub(1);
        if share.waiting.is_empty() {
            share.progress = None;
            if share.in_flight == 0 {
                self.shares.swap_remove(index);
            }
        } else {
            share.progress = Some(now());
        }
    }

    /// The next waiting request that may go to the server now, with its share; it is counted as one that the server
    /// has.
    pub fn next(&mut self) -> Option<(u32, T)> {
        if self.waiting == 0 {
            return None;
        }
        let count = self.shares.len();
        let index = (0..count).map(|offset| (self.next + offset) % count).find(|index| {
            let share = &self.shares[*index];
            share.in_flight < IN_FLIGHT && !share.waiting.is_empty()
        })?;
        self.next = index + 1;
        let share = &mut self.shares[index];
        share.in_flight += 1;
        self.waiting -= 1;
        share.waiting.pop_front().map(|request| (share.number, request))
    }

    /// True while a share has so much of the ring that it would lose requests if it made no progress.
    pub fn is_crowded(&self) -> bool {
        self.shares.iter().any(|share| self.has_too_much(share))
    }

    /// A request to answer with an error: the last of a share that has too much of the ring and makes no progress.
    pub fn shed(&mut self, now: Instant) -> Option<T> {
        let is_stuck = |share: &Share<T>| {
            share.progress.is_some_and(|progress| now.saturating_duration_since(progress) >= STUCK_AFTER)
        };
        let index = self.shares.iter().position(|share| self.has_too_much(share) && is_stuck(share))?;
        self.waiting -= 1;
        let share = &mut self.shares[index];
        let request = share.waiting.pop_back();
        if share.waiting.is_empty() && share.in_flight == 0 {
            self.shares.swap_remove(index);
        }
        request
    }

    /// Whether a share has more of the ring than what is left for all others together. So however many shares are
    /// stuck, others always have room.
    fn has_too_much(&self, share: &Share<T>) -> bool {
        share.waiting.len() > self.most.saturating_sub(self.waiting) / 2
    }

    fn share(&mut self, number: u32) -> &mut Share<T> {
        let index = self.shares.iter().position(|share| share.number == number).unwrap_or_else(|| {
            let share = Share { number, in_flight: 0, waiting: VecDeque::new(), progress: None };
            self.shares.push(share);
            self.shares.len() - 1
        });
        &mut self.shares[index]
    }
}

#[cfg(test)]
#[path = "turns_test.rs"]
mod tests;
