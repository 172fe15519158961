//! Signals, by number: images stop by real-time signals too (systemd's SIGRTMIN+3).

use nix::{errno::Errno, unistd::Pid};

/// Sends `signal`, 0 being none, to one process that the agent has not reaped, so that the PID is still its
/// own.
pub fn send(pid: Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill takes two numbers and touches no memory of the caller.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop)
}

/// A stream whose reader has gone is an error of that stream, not the agent's end.
pub fn ignore_broken_pipes() {
    // SAFETY: no handler runs. It cannot fail: SIGPIPE is a signal that may be ignored.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}
