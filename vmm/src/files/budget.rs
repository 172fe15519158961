//! How many descriptors the guest can make the server hold.
//!
//! A share gets one more as long as it holds less than its own limit and less than what is still free altogether. So one
//! greedy container gets half, two get a third each, and there is always something left for the others. Beyond that, the
//! container gets ENFILE; descriptors that it gives back are available at once.
//!
//! The trees themselves come from the runtime; they are counted, but not limited.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use super::sys::{Errno, Result};

/// The descriptors of all shares together.
#[derive(Debug)]
pub struct Pot {
    size: u32,
    used: AtomicU32,
}

impl Pot {
    /// A pot of this many descriptors.
    pub fn new(size: u32) -> Self {
        Self { size, used: AtomicU32::new(0) }
    }

    /// Number of descriptors that are in use.
    pub fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }
}

/// The descriptors of one share.
#[derive(Debug)]
pub struct Budget {
    pot: Arc<Pot>,
    limit: u32,
    used: AtomicU32,
}

impl Budget {
    /// A budget of at most `limit` descriptors from the pot.
    pub fn new(pot: Arc<Pot>, limit: u32) -> Self {
        Self { pot, limit, used: AtomicU32::new(0) }
    }

    /// Number of descriptors that are in use.
    pub fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// Takes the right to one more descriptor.
    pub fn take(self: &Arc<Self>) -> Result<Permit> {
        // Two threads may both take the last one: the process may open a few descriptors beyond the limit.
        if self.part_taken(1, 1) {
            return Err(Errno::new(libc::ENFILE));
        }
        Ok(self.take_anyway())
    }

    /// Takes the right to a descriptor that the runtime hands over, whatever the limits are.
    pub fn take_anyway(self: &Arc<Self>) -> Permit {
        self.used.fetch_add(1, Relaxed);
        self.pot.used.fetch_add(1, Relaxed);
        Permit { budget: Arc::clone(self) }
    }

    /// Whether three quarters are used: the server then opens nothing that was not requested.
    pub fn is_scarce(&self) -> bool {
        self.part_taken(3, 4)
    }

    fn part_taken(&self, numerator: u64, denominator: u64) -> bool {
        let free = self.pot.size.saturating_sub(self.pot.used());
        u64::from(self.used()) * denominator >= u64::from(free.min(self.limit)) * numerator
    }
}

/// The right to one descriptor, kept beside it.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(1, Relaxed);
        self.budget.pot.used.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
#[path = "budget_test.rs"]
mod tests;
