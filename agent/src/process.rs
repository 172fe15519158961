//! A process that the host knows, a container's init or an exec:
//!
//! ```text
//!  Creating ──▶ Created ──▶ Starting ──▶ Running ──▶ Stopped ──▶ gone
//!      │           │            │                       ▲
//!      └───────────┴────────────┴───────────────────────┘
//! ```
//!
//! Creating and Starting wait for the process's report. A container's init is forgotten with its container, an exec
//! when it has ended and the host has closed its connections.

use std::os::fd::OwnedFd;

use nix::unistd::Pid;
use stockade_protocol::agent::ExitStatus;

use crate::{poller::Token, stdio::Stdio};

/// One process.
#[derive(Debug)]
pub struct Process {
    /// Its PID in the guest's root PID namespace; once it is [`Phase::Stopped`], another process may have this PID.
    pub pid: Pid,
    /// Its phase.
    pub phase: Phase,
    /// The channel to it, until it has executed its program.
    pub channel: Option<Channel>,
    /// Its streams.
    pub stdio: Stdio,
    /// Its sd_notify(3) socket, if the host wants its notifications.
    pub notify: Option<OwnedFd>,
    /// The registrations of its streams and of that socket.
    pub watched: Vec<Token>,
    /// The host's connection that has asked for an exec. The exec ends with it, until there is a connection that stands
    /// for the exec.
    pub requester: Option<Token>,
    /// The host's connection that stands for it.
    pub connection: Option<Token>,
    /// Whether the host has been told how it ended.
    pub reported: bool,
}

/// The phase of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The process makes its mounts; this connection waits for Created.
    Creating(Token),
    /// The process waits for its start.
    Created,
    /// The process is about to execute the program; this connection waits for Started.
    Starting(Token),
    /// The program runs.
    Running,
    /// The process has ended.
    Stopped(ExitStatus),
}

/// The agent's end of the socket pair to a process that has not executed its program yet.
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

    /// Whether it has to end with this connection.
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

    /// The status that the host still has to be told: it is told of the end after the process's last byte of output.
    pub fn unreported_exit(&self) -> Option<ExitStatus> {
        self.exit().filter(|_| !self.reported && self.stdio.is_drained())
    }
}
