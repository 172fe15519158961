//! A process that the host knows, a container's init or an exec:
//!
//! ```text
//!  Creating ──▶ Created ──▶ Starting ──▶ Running ──▶ Stopped ──▶ gone
//!      │           │            │                       ▲
//!      └───────────┴────────────┴───────────────────────┘
//! ```
//!
//! Creating and Starting wait for the process's report. A container's init is gone with its container; an exec when
//! it has ended and the host has let go of it.

use std::os::fd::OwnedFd;

use nix::unistd::Pid;
use stockade_protocol::agent::ExitStatus;

use crate::{poller::Token, stdio::Stdio};

/// One process.
#[derive(Debug)]
pub struct Process {
    /// Its PID in the guest's root PID namespace; another's once it is [`Phase::Stopped`].
    pub pid: Pid,
    /// How far it is.
    pub phase: Phase,
    /// To it, until it has executed its program.
    pub channel: Option<Channel>,
    /// Its streams.
    pub stdio: Stdio,
    /// Where it says sd_notify(3)'s words, if the host hears them.
    pub notify: Option<OwnedFd>,
    /// The registrations of its streams and of that.
    pub watched: Vec<Token>,
    /// The host's connection that an exec lives by until it has one that stands for it: the one that asked for it.
    pub requester: Option<Token>,
    /// The host's connection that stands for it.
    pub connection: Option<Token>,
    /// The host knows how it ended.
    pub reported: bool,
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It makes its mounts; this connection waits for Created.
    Creating(Token),
    /// It waits.
    Created,
    /// It is executing the program; this connection waits for Started.
    Starting(Token),
    /// The program runs.
    Running,
    /// It has ended.
    Stopped(ExitStatus),
}

/// The agent's end of the socket pair between it and a process that has yet to execute its program.
#[derive(Debug)]
pub struct Channel {
    /// The socket.
    pub socket: OwnedFd,
    /// Its registration.
    pub token: Token,
}

impl Process {
    /// A process in this phase.
    pub fn new(pid: Pid, stdio: Stdio, phase: Phase) -> Self {
        Self {
            pid,
            phase,
            channel: None,
            stdio,
            notify: None,
            watched: Vec::new(),
            requester: None,
            connection: None,
            reported: false,
        }
    }

    /// Whether it is not to outlive this connection.
    pub fn is_held_by(&self, connection: Token) -> bool {
        [self.requester, self.connection].contains(&Some(connection))
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<ExitStatus> {
        match self.phase {
            Phase::Stopped(status) => Some(status),
            _ => None,
        }
    }

    /// What the host has yet to be told: it hears of the end after the process's last byte of output.
    pub fn unreported_exit(&self) -> Option<ExitStatus> {
        self.exit().filter(|_| !self.reported && self.stdio.is_drained())
    }
}
