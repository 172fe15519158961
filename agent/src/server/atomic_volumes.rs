//! Following changes of the host: not at once, because the guest caches names and attributes for a while.

use std::{rc::Rc, time::Duration};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use stockade_protocol::agent::ProcessId;

use super::{Server, Target};
use crate::error::{Context, Result};

/// Delay of a refresh: longer than the second for which the kernel caches names and attributes of a shared file system.
/// So no refresh sees what was cached at the one before.
const LATER: Duration = Duration::from_millis(1200);

impl Server {
    /// Plans a refresh, because a directory has changed of which this init's container has a copy.
    pub(super) fn refresh_atomic_volumes_later(&mut self, init: &Rc<ProcessId>) {
        let Some(container) = self.containers.get(&init.container) else { return };
        if init.exec.is_some()
            || container.atomic_volumes.is_empty()
            || container.atomic_volumes.due.is_some()
        {
            return;
        }
        let watched = timer(LATER).and_then(|timer| {
            let token = self.poller.add(&timer, |_| Target::AtomicVolumes(init.clone()))?;
            Ok((timer, token))
        });
        let due = match watched {
            Ok(due) => Some(due),
            Err(error) => {
                eprintln!("stockade-agent: {}", error.message);
                None
            }
        };
        if let Some(container) = self.containers.get_mut(&init.container) {
            container.atomic_volumes.due = due;
        }
    }

    /// Refreshes the copies.
    pub(super) fn refresh_atomic_volumes(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Some((_, token)) = container.atomic_volumes.due.take() {
            self.poller.forget(token);
        }
        container.atomic_volumes.refresh();
    }
}

/// A timer that fires once.
pub(super) fn timer(after: Duration) -> Result<TimerFd> {
    TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
        .and_then(|timer| {
            timer
                .set(Expiration::OneShot(TimeSpec::from_duration(after)), TimerSetTimeFlags::empty())
                .map(|()| timer)
        })
        .or_internal(|| "set a timer".to_owned())
}
