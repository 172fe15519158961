//! What becomes of the streams of a process that is deleted.

use std::os::fd::AsFd;

use super::stdio::{Kept, LOGGER_ENDS_WITHIN, LOGGER_OBEYS_WITHIN};
use super::tasks::Shim;
use crate::life_cycle::Handle;
use crate::relay::held_streams;

impl Shim {
    /// Ends the streams of an exec that others in the guest have open: its client waits for their end.
    pub fn end_left_streams(&self, id: &str, kept: &Kept) {
        let mut written = kept.written().peekable();
        if written.peek().is_none() {
            return;
        }
        let heir = || {
            let settings = self.tasks().container(id).ok()?.settings.clone();
            let handle = Handle::peek(&self.globals(&settings), id).ok()?;
            held_streams::connect(handle.directory.as_fd())
        };
        if let Some(heir) = heir() {
            // If the relay is gone, so are the streams.
            written.for_each(|file| drop(held_streams::end(&heir, file)));
        }
    }

    /// Closes what was kept of streams, and waits for their logger's end.
    pub fn let_go(&self, kept: Kept) {
        let Some(logger) = kept.logger else { return };
        drop(kept);
        for (within, signal) in [(LOGGER_ENDS_WITHIN, libc::SIGTERM), (LOGGER_OBEYS_WITHIN, libc::SIGKILL)] {
            if self.wait_for(logger, Some(within)).is_some() {
                return;
            }
            tracing::warn!("the logger with PID {logger} has not ended in time");
            self.signal_command(logger, signal);
        }
        self.wait_for(logger, Some(LOGGER_OBEYS_WITHIN));
    }
}
