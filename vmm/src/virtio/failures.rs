//! Why devices have failed.
//!
//! A device that fails does no more work, and in the guest everything that uses it hangs. So the cause is kept for
//! later requests, and the main thread is told, which reports it.

use std::{
    fmt::Display,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stockade_protocol::vmm::DeviceFailure;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Largest number of devices that are distinguished; a machine has fewer slots.
const MAX: usize = 32;

/// Longest cause, in characters.
const CAUSE_LIMIT: usize = 256;

/// Largest number of reports from one machine, because a guest can make a device fail again and again.
const MAX_REPORTS: usize = 16;

/// The failures of a machine's devices; clones share them.
#[derive(Clone, Debug)]
pub struct Failures(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    event: EventFd,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The last failure of each device.
    all: Vec<DeviceFailure>,
    /// Failures that the main thread has not been told yet.
    news: Vec<DeviceFailure>,
    told: usize,
}

impl Failures {
    /// Without failures yet.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared { event: EventFd::new(EFD_NONBLOCK)?, known: Mutex::default() })))
    }

    /// Readable while there is something to [`Self::take_news`].
    pub fn event(&self) -> &EventFd {
        &self.0.event
    }

    /// Records that a device has failed.
    pub fn add(&self, device: &str, cause: &dyn Display) {
        let cause: String = cause.to_string().chars().take(CAUSE_LIMIT).collect();
        let mut known = self.lock();
        let index = known.all.iter().position(|failure| failure.device == device);
        if let Some(failure) = index.and_then(|index| known.all.get_mut(index)) {
            failure.cause.clone_from(&cause);
            failure.count = failure.count.saturating_add(1);
        } else if known.all.len() < MAX {
            known.all.push(DeviceFailure { device: device.to_owned(), cause: cause.clone(), count: 1 });
        }
        if known.told < MAX_REPORTS {
            known.told += 1;
            known.news.push(DeviceFailure { device: device.to_owned(), cause, count: 1 });
            // The counter is read by the main thread, and cannot be full before that.
            let _ = self.0.event.write(1);
        }
    }

    /// The last failure of each device that has failed.
    pub fn all(&self) -> Vec<DeviceFailure> {
        self.lock().all.clone()
    }

    /// The failures since the last call.
    pub fn take_news(&self) -> Vec<DeviceFailure> {
        // Only the main thread reads it.
        let _ = self.0.event.read();
        std::mem::take(&mut self.lock().news)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "failures_test.rs"]
mod tests;
