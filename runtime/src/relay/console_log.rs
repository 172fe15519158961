//! The VMM's last message, kept for `stockade logs`: when the VMM has ended, nobody can ask for the guest's console.

use std::fs::File;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use stockade_protocol::vmm::{STATUS_LIMIT, Status};

use crate::sys::descriptors;
use crate::vm::DIED_SILENTLY;

/// How long a VMM may take to end after its guest's connections have closed: a kernel that reboots resets its devices
/// before the machine.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// Writes the console's last lines and the VMM's reason to `file`, if the VMM has ended. The guest may have taken the
/// VMM over: the message is at most [`STATUS_LIMIT`] bytes and is used as text for a person only.
pub(super) fn keep(lease: BorrowedFd<'_>, mut file: File) {
    let mut fds = [PollFd::new(lease, PollFlags::empty())];
    let timeout = PollTimeout::try_from(ENDS_WITHIN).unwrap_or(PollTimeout::MAX);
    if !poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) {
        return;
    }
    let mut words = (DIED_SILENTLY.to_owned(), String::new());
    let mut packet = vec![0; STATUS_LIMIT];
    while let Ok(length @ 1..) = descriptors::receive_bytes(lease, &mut packet) {
        if let Ok(Status::Failed { reason, console, .. } | Status::Ended { reason, console }) =
            postcard::from_bytes(&packet[..length])
        {
            words = (reason, console);
        }
    }
    let (reason, console) = words;
    let separator = if console.is_empty() || console.ends_with('\n') { "" } else { "\n" };
    // A full disk leaves nobody to tell.
    let _ = writeln!(file, "{console}{separator}stockade-vmm: {reason}");
}
