//! Signals to a process on its way to its program.
//!
//! While it makes its mounts, signals are blocked: a SIGHUP from the terminal that a failed step has closed must not be
//! faster than the report of the failure.
//!
//! While it waits for its start, signals end it. A container's init is PID 1 of its PID namespace, and the kernel drops
//! signals for which such a process has no handler: a created container would outlive every signal but SIGKILL, where
//! callers expect it to end as any program would. execve resets the handlers: from then on the rules for PID 1 hold.

use nix::sys::signal::SigSet;

use crate::error::{Context, Result};

/// Signals that do not end a program without a handler, or that cannot have a handler.
const HARMLESS: &[libc::c_int] = &[
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGURG,
    libc::SIGWINCH,
];

/// The highest signal.
const LAST: libc::c_int = 64;

/// Blocks signals.
pub fn hold() -> Result<()> {
    SigSet::all().thread_set_mask().or_internal(|| "block signals".to_owned())
}

/// Unblocks signals; each that would end a program ends this process.
pub fn end_by_default() -> Result<()> {
    for signal in (1..=LAST).filter(|signal| !HARMLESS.contains(signal)) {
        // It fails for the two that libc keeps for itself.
        // SAFETY: the handler only calls _exit, which is safe in one.
        unsafe { libc::signal(signal, end as *const () as libc::sighandler_t) };
    }
    SigSet::empty().thread_set_mask().or_internal(|| "unblock signals".to_owned())
}

/// Ends as shells report a death by this signal.
extern "C" fn end(signal: libc::c_int) {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(128 + signal) }
}
