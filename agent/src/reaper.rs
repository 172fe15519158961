//! Ended children: the containers' inits, and every orphan that the kernel hands to PID 1.

use nix::{
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
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

/// Everything that has ended since the last call.
pub fn reap(signals: &SignalFd) -> Vec<(Pid, ExitStatus)> {
    // One signal may stand for many children: it only says that it is worth looking.
    while let Ok(Some(_)) = signals.read_signal() {}
    let mut ended = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => ended.push((pid, ExitStatus::Exited(status as u8))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                ended.push((pid, ExitStatus::Signalled(signal as u8)))
            }
            // Stopped or traced children are not asked for.
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}
