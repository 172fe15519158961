//! Signal numbers as callers write them, and signals read from a descriptor instead of delivered.

use std::io;

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The highest signal number, SIGRTMAX.
const LAST: i32 = 64;
/// The lowest real-time signal that libc leaves to programs.
const RT_MIN: i32 = 34;

const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGIOT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
    ("RTMIN", RT_MIN),
    ("RTMAX", LAST),
];

/// A text that does not name a signal.
#[derive(Debug, thiserror::Error)]
#[error("unknown signal {0:?}: give a number from 0 to {LAST} or a name such as TERM or SIGRTMIN+3")]
pub struct UnknownSignal(String);

/// The number of a signal: `15`, `TERM`, `SIGTERM`, `sigterm` or `RTMIN+3`.
///
/// # Errors
/// [`UnknownSignal`].
pub fn parse(text: &str) -> Result<i32, UnknownSignal> {
    let unknown = || UnknownSignal(text.to_owned());
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=LAST).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let number = if let Some(offset) = name.strip_prefix("RTMIN+") {
        RT_MIN.checked_add(offset.parse().map_err(|_| unknown())?)
    } else if let Some(offset) = name.strip_prefix("RTMAX-") {
        LAST.checked_sub(offset.parse().map_err(|_| unknown())?)
    } else {
        None
    };
    number.filter(|number| (RT_MIN..=LAST).contains(number)).ok_or_else(unknown)
}

/// Blocks every signal and returns a non-blocking descriptor to read them from.
///
/// # Errors
/// sigprocmask(2)'s or signalfd(2)'s.
pub fn block_all() -> io::Result<SignalFd> {
    let all = SigSet::all();
    all.thread_block()?;
    Ok(SignalFd::with_flags(&all, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// Unblocks every signal, as a program that is about to be executed expects.
///
/// # Errors
/// sigprocmask(2)'s.
pub fn unblock_all() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

#[cfg(test)]
#[path = "signals_test.rs"]
mod tests;
