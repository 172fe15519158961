//! A process that the host knows: a container's init.

use nix::unistd::Pid;
use stockade_protocol::agent::ExitStatus;

use crate::{poller::Token, stdio::Stdio};

/// One process.
#[derive(Debug)]
pub struct Process {
    /// Its PID in the guest's root PID namespace; another's once `exit` is known.
    pub pid: Pid,
    /// Its streams.
    pub stdio: Stdio,
    /// The registrations of its streams.
    pub watched: Vec<Token>,
    /// The host's connection that stands for it.
    pub connection: Option<Token>,
    /// How it ended.
    pub exit: Option<ExitStatus>,
    /// The host knows that.
    pub reported: bool,
}

impl Process {
    /// A running process.
    pub fn new(pid: Pid, stdio: Stdio) -> Self {
        Self { pid, stdio, watched: Vec::new(), connection: None, exit: None, reported: false }
    }

    /// What the host has yet to be told: it hears of the end after the last byte of output.
    pub fn unreported_exit(&self) -> Option<ExitStatus> {
        self.exit.filter(|_| !self.reported && self.stdio.is_drained())
    }
}
