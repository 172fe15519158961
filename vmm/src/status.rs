//! Reports to the runtime: how far the VMM has come, and how it ended.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use nix::sys::socket::{MsgFlags, send};
use stockade_protocol::vmm::{CONSOLE_EXCERPT, STATUS_LIMIT, Stage, Status};

/// Longest reason in a report, in characters of at most four bytes, so that a packet stays below [`STATUS_LIMIT`].
const REASON_LIMIT: usize = 1 << 10;

const _: () = assert!(CONSOLE_EXCERPT + 4 * REASON_LIMIT + 64 < STATUS_LIMIT);

/// The status socket, which threads share.
///
/// A report that cannot be sent is dropped: nobody listens any more, and the VMM will notice that and exit.
#[derive(Debug)]
pub struct StatusSocket {
    socket: OwnedFd,
    last: Mutex<Option<Stage>>,
}

impl StatusSocket {
    /// Reports go to `socket`, a SOCK_SEQPACKET.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, last: Mutex::new(None) }
    }

    /// Reports a stage; a stage that is not after the last one is ignored.
    pub fn reached(&self, stage: Stage) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last < stage) {
            *last = Some(stage);
            self.send(&Status::Reached(stage));
        }
    }

    /// Reports that the VMM gives up; the caller exits.
    pub fn failed(&self, reason: &str, console: String) {
        self.send(&self.failure(reason, console));
    }

    /// The same report, without a console, as bytes for a signal's handler, which can only send what was prepared.
    pub fn final_report(&self, reason: &str) -> Option<Vec<u8>> {
        postcard::to_stdvec(&self.failure(reason, String::new())).ok()
    }

    fn failure(&self, reason: &str, console: String) -> Status {
        // A VMM that cannot read its configuration has not reached any stage; the first is the nearest.
        let after = self.last.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(Stage::Started);
        Status::Failed { after, reason: one_line(reason), console }
    }

    /// Reports that the guest has ended its machine; the caller exits.
    pub fn ended(&self, reason: &str, console: String) {
        self.send(&Status::Ended { reason: one_line(reason), console });
    }

    /// Reports that a device has failed.
    pub fn device_failed(&self, device: String, cause: String) {
        self.send(&Status::DeviceFailed { device, cause: one_line(&cause) });
    }

    /// Reports that the template cannot be used; the guest boots.
    pub fn template_refused(&self, reason: &str) {
        self.send(&Status::TemplateRefused { reason: one_line(reason) });
    }

    /// Reports that a guest that is to be saved is not at rest yet. Returns whether somebody listens.
    pub fn is_settling(&self) -> bool {
        self.try_to_send(&Status::Reached(Stage::AgentConnected))
    }

    /// Reports that the guest is saved; the caller exits.
    pub fn saved(&self) {
        self.send(&Status::Saved);
    }

    fn send(&self, status: &Status) {
        self.try_to_send(status);
    }

    fn try_to_send(&self, status: &Status) -> bool {
        postcard::to_stdvec(status)
            .is_ok_and(|packet| send(self.socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL).is_ok())
    }
}

impl AsFd for StatusSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn one_line(reason: &str) -> String {
    reason.chars().take(REASON_LIMIT).map(|c| if c == '\n' { ' ' } else { c }).collect()
}
