//! The descriptors of a new process: stdio, further streams from 3 on, and above them the channel to the agent, which
//! execve closes.

use std::{
    mem,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout},
};

use crate::{
    error::{Context, Result},
    stdio::ProcessPipes,
};

/// Descriptor number of the first of the further streams.
const FIRST_EXTRA: RawFd = 3;

/// The descriptors that a new process keeps.
#[derive(Debug)]
pub struct Kept {
    /// Pipes for fds 0–2; a process with a terminal opens that itself.
    pub pipes: Option<ProcessPipes>,
    /// Descriptors for fds from 3 on; `None` if a number is not open.
    pub extra: Vec<Option<OwnedFd>>,
    /// The channel to the agent.
    pub channel: OwnedFd,
}

impl Kept {
    /// Closes all other descriptors, because another process's streams would not end while a copy of them is open here.
    /// Returns the channel.
    pub fn alone(self) -> Result<OwnedFd> {
        if let Some(pipes) = &self.pipes {
            dup2_stdin(&pipes.stdin)
                .and_then(|()| dup2_stdout(&pipes.stdout))
                .and_then(|()| dup2_stderr(&pipes.stderr))
                .or_internal(|| "set the standard streams".to_owned())?;
        }
        let channel = FIRST_EXTRA + self.extra.len() as RawFd;
        let extra = self.extra.iter().map(Option::as_ref);
        let places = (FIRST_EXTRA..).zip(extra.chain([Some(&self.channel)]));
        // The descriptors are first moved away from the numbers that will be used, and then to their places.
        let moved = places
            .map(|(to, from)| {
                let copy = |from| fcntl(from, FcntlArg::F_DUPFD_CLOEXEC(channel + 1));
                Ok((to, from.map(copy).transpose()?))
            })
            .collect::<Result<Vec<_>, Errno>>()
            .or_internal(|| "move descriptors".to_owned())?;
        for (to, from) in moved {
            let Some(from) = from else {
                close_range(to, to).or_internal(|| "close a descriptor".to_owned())?;
                continue;
            };
            let flags = if to == channel { libc::O_CLOEXEC } else { 0 };
            // SAFETY: whatever was at this number in the agent, nothing here uses it.
            Errno::result(unsafe { libc::dup3(from, to, flags) })
                .or_internal(|| "set the further streams".to_owned())?;
        }
        // The numbers are closed below, all at once.
        mem::forget(self);
        close_range(channel + 1, RawFd::MAX).or_internal(|| "close the agent's descriptors".to_owned())?;
        // SAFETY: dup3 has made it, and its number's former owner is never dropped here.
        Ok(unsafe { OwnedFd::from_raw_fd(channel) })
    }
}

fn close_range(first: RawFd, last: RawFd) -> Result<(), Errno> {
    // SAFETY: the owners of these numbers belong to the agent's code, which this process does not run any more.
    Errno::result(unsafe { libc::close_range(first as libc::c_uint, last as libc::c_uint, 0) }).map(drop)
}
