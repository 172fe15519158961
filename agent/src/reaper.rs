//! Ended children: the containers' inits, and every orphan that the kernel hands to PID 1.

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};
use stockade_protocol::agent::ExitStatus;

use crate::error::{Context, Result};

/// Blocks SIGCHLD and makes it readable from a descriptor.
pub fn watch() -> Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals
        .thread_block()
        .and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .or_internal(|| "watch for ended processes".to_owned())
}

/// Reaps all children that have ended since the last call.
pub fn reap(signals: &SignalFd) -> Vec<(Pid, ExitStatus)> {
    // One signal may stand for many children: it only says that it is worth looking.
    while let Ok(Some(_)) = signals.read_signal() {}
    let mut ended = Vec::new();
    loop {
        let mut status: libc::c_int = 0;
        // SAFETY: waitpid stores one int, which `status` is. nix's own has no word for the end by a real-time signal.
        let pid = match Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }) {
            Ok(0) | Err(_) => return ended,
            Ok(pid) => Pid::from_raw(pid),
        };
        if libc::WIFEXITED(status) {
            ended.push((pid, ExitStatus::Exited(libc::WEXITSTATUS(status) as u8)));
        } else if libc::WIFSIGNALED(status) {
            ended.push((pid, ExitStatus::Signalled(libc::WTERMSIG(status) as u8)));
        }
    }
}
