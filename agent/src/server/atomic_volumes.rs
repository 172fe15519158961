//! Following what the host changes: not at once, because for a while the guest believes what it was told last.

use std::{rc::Rc, time::Duration};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use stockade_protocol::agent::ProcessId;

use super::{Server, Target};
use crate::error::{Context, Result};

/// Longer than the second for which the kernel keeps names and attributes of a shared file system. Since two looks are
/// further apart than that, none of them sees what was kept at the one before.
const LATER: Duration = Duration::from_millis(1200);

impl Server {
    /// Something has changed in what the container of this init has copies of.
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

    /// The time has come.
    pub(super) fn refresh_atomic_volumes(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Some((_, token)) = container.atomic_volumes.due.take() {
            self.poller.forget(token);
        }
        container.atomic_volumes.refresh();
    }
}

/// Fires once.
pub(super) fn timer(after: Duration) -> Result<TimerFd> {
    TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
        .and_then(|timer| {
            timer
                .set(Expiration::OneShot(TimeSpec::from_duration(after)), TimerSetTimeFlags::empty())
                .map(|()| timer)
        })
        .or_internal(|| "set a timer".to_owned())
}
