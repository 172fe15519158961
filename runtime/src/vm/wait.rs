//! Waiting for a VM: until a descriptor is ready, a deadline has come, a process that the command depends on has ended,
//! or a signal asks the command to stop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags};
use nix::sys::signalfd::SignalFd;

use super::MachineError;
use crate::sys::deadline::Deadline;
use crate::sys::process::Pidfd;

/// A signal that asks the command to stop, if one has come; SIGCHLD does not count.
pub(super) fn interruption(signals: Option<&SignalFd>) -> Result<Option<u32>, MachineError> {
    let Some(signals) = signals else { return Ok(None) };
    while let Some(info) = signals.read_signal().map_err(io::Error::from)? {
        if [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT].contains(&(info.ssi_signo as i32)) {
            return Ok(Some(info.ssi_signo));
        }
    }
    Ok(None)
}

/// Waits until a descriptor is ready; false if it is not by the deadline. It also ends, with an error, when the process
/// that the command depends on ends, and when a signal asks the command to stop.
///
/// # Errors
/// [`MachineError`].
pub fn wait_for(
    wanted: (BorrowedFd<'_>, PollFlags),
    deadline: Deadline,
    ends: Option<(&Pidfd, MachineError)>,
    interrupts: Option<&SignalFd>,
) -> Result<bool, MachineError> {
    let input = PollFlags::POLLIN;
    let (process, mut ended) = ends.unzip();
    loop {
        let mut fds = vec![PollFd::new(wanted.0, wanted.1)];
        fds.extend(process.map(|process| PollFd::new(process.as_fd(), input)));
        fds.extend(interrupts.map(|signals| PollFd::new(signals.as_fd(), input)));
        if !deadline.wait(&mut fds)? {
            return Ok(false);
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        if let Some(signal) = interruption(interrupts)? {
            return Err(MachineError::Interrupted(signal));
        }
        match (ready[0], ended) {
            (true, _) => return Ok(true),
            (false, Some(ended)) if ready[1] => return Err(ended),
            (false, other) => ended = other,
        }
    }
}

/// A way to wait for a descriptor that never waits for ever.
pub trait Wait {
    /// Begins an exchange: all waits until the next call share one time limit.
    fn begin(&mut self);

    /// Waits until `fd` is ready for the events in `flags`.
    ///
    /// # Errors
    /// [`MachineError`] if that will not happen.
    fn ready(&mut self, fd: BorrowedFd<'_>, flags: PollFlags, what: &'static str)
    -> Result<(), MachineError>;
}
