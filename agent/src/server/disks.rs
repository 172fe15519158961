//! Waiting until the kernel has unmounted what a container had mounted of its disks.

use std::{rc::Rc, time::Duration};

use stockade_protocol::agent::ProcessId;

use super::{Server, Target, atomic_volumes::timer};

/// Time between two checks.
const AGAIN: Duration = Duration::from_millis(20);

impl Server {
    /// Whether a container's disks are free; if not, its end and its removal continue later.
    pub(super) fn disks_are_free(&mut self, id: &str) -> bool {
        let Some(container) = self.containers.get_mut(id) else { return true };
        if container.disks.is_empty() {
            return true;
        }
        if container.disks.due.is_some() {
            return false;
        }
        if container.disks.are_free() {
            container.disks.flush();
            return true;
        }
        let init = container.init.clone();
        let watched = timer(AGAIN).and_then(|timer| {
            let token = self.poller.add(&timer, |_| Target::Disks(init))?;
            Ok((timer, token))
        });
        match (watched, self.containers.get_mut(id)) {
            (Ok(due), Some(container)) => container.disks.due = Some(due),
            // There is no timer, so there is no wait.
            _ => return true,
        }
        false
    }

    /// Checks the disks again, and continues the container's end and removal.
    pub(super) fn look_at_disks(&mut self, init: &Rc<ProcessId>) {
        if let Some(container) = self.containers.get_mut(&init.container)
            && let Some((_, token)) = container.disks.due.take()
        {
            self.poller.forget(token);
        }
        self.report_exit(init);
        self.finish_removal(&init.container);
    }
}
