//! Signals, by number, because some images are stopped by real-time signals (systemd's SIGRTMIN+3).

use nix::{errno::Errno, unistd::Pid};

/// Sends `signal` to a process that the agent has not reaped, so that the PID is still its own; 0 sends no signal.
pub fn send(pid: Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill takes two numbers and touches no memory of the caller.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop)
}

/// Ignores SIGPIPE, so that a stream without a reader causes an error of that stream instead of the agent's end.
pub fn ignore_broken_pipes() {
    // SAFETY: no handler runs. It cannot fail: SIGPIPE is a signal that may be ignored.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}
