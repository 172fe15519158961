//! A command that stays while its process runs, and passes its signals on to the process.

use std::io;
use std::os::fd::AsFd;

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::WaitStatus;

use crate::relay::RelayError;
use crate::sys::process::{Child, Pidfd};

/// Passes signals on until the relay has ended; returns its process's status, 128+n after signal n.
///
/// # Errors
/// When the relay is no longer a child of this command.
pub fn attend(signals: &SignalFd, relay: &Child) -> anyhow::Result<u8> {
    loop {
        let mut fds = [signals.as_fd(), relay.pidfd.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            result => result?,
        };
        let [_, ended] = fds.map(|fd| fd.any().unwrap_or(false));
        pass_on(signals, &relay.pidfd)?;
        if ended {
            return status(relay);
        }
    }
}

fn pass_on(signals: &SignalFd, relay: &Pidfd) -> io::Result<()> {
    while let Some(info) = signals.read_signal()? {
        let signal = info.ssi_signo as i32;
        if signal != libc::SIGCHLD && signal != libc::SIGPIPE {
            // It fails only where the relay has just ended.
            let _ = relay.signal(signal);
        }
    }
    Ok(())
}

fn status(relay: &Child) -> anyhow::Result<u8> {
    match relay.reap().context("cannot wait for the process")? {
        WaitStatus::Exited(_, status) => Ok(status as u8),
        WaitStatus::Signaled(_, Signal::SIGSYS, _) => {
            tracing::error!("{}", RelayError::Forbidden);
            Ok(128 + libc::SIGSYS as u8)
        }
        WaitStatus::Signaled(_, signal, _) => Ok(128u8.wrapping_add(signal as u8)),
        other => anyhow::bail!("the process's relay ended with {other:?}"),
    }
}
