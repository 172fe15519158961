//! Waiting for a VM: until something is ready, and no longer than a deadline, a process that the command depends on, or a signal
//! says.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags};
use nix::sys::signalfd::SignalFd;

use super::MachineError;
use crate::sys::deadline::Deadline;
use crate::sys::process::Pidfd;

/// A signal that asks to stop; the ends of children are no reason.
pub(super) fn interruption(signals: Option<&SignalFd>) -> Result<Option<u32>, MachineError> {
    let Some(signals) = signals else { return Ok(None) };
    while let Some(info) = signals.read_signal().map_err(io::Error::from)? {
        if [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT].contains(&(info.ssi_signo as i32)) {
            return Ok(Some(info.ssi_signo));
        }
    }
    Ok(None)
}

/// Waits until a descriptor is ready; false if it is not by the deadline. It ends with the process that the command depends on, with
/// the error for that, and at a signal that asks the command to stop.
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

/// Something that can wait for a descriptor without waiting for ever.
pub trait Wait {
    /// An exchange begins: from now until the next one begins, all that is waited for has to come in time together.
    fn begin(&mut self);

    /// Returns when `fd` is ready for what `flags` say.
    ///
    /// # Errors
    /// [`MachineError`] when that is not going to happen.
    fn ready(&mut self, fd: BorrowedFd<'_>, flags: PollFlags, what: &'static str)
    -> Result<(), MachineError>;
}
