//! A container's life:
//!
//! ```text
//!  Creating ──▶ Created ──▶ Starting ──▶ Running ──▶ Stopped
//!      │           │            │           │           │
//!      └───────────┴────────────┴───────────┴───────────┴──▶ (removal) ──▶ gone
//! ```
//!
//! A created or running container may be frozen, which changes nothing about how far it is.
//!
//! Creating and Starting wait for the init's report. A removal, asked for by Delete or by a Create that has
//! failed, waits until the init is reaped and the cgroup is empty.

use std::{fs::File, os::fd::OwnedFd, rc::Rc};

use stockade_protocol::{
    agent::{ExitStatus, ProcessId, Response},
    container::DeviceRule,
};

use crate::{cgroup::Cgroup, poller::Token};

/// One container.
#[derive(Debug)]
pub struct Container {
    /// Names its init.
    pub init: Rc<ProcessId>,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// Its device rules, which are put in force when it is built.
    pub device_rules: Vec<DeviceRule>,
    /// How far it is.
    pub phase: Phase,
    /// To the init, until it has executed its program.
    pub channel: Option<Channel>,
    /// Its processes are frozen.
    pub frozen: bool,
    /// Set while they are being frozen or thawed.
    pub freezing: Option<Freezing>,
    /// Who is told what happens to it.
    pub audience: Audience,
    /// Set once it is to go.
    pub removal: Option<Removal>,
}

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The init builds it; this connection waits for Created.
    Creating(Token),
    /// The init waits.
    Created,
    /// The init is executing the program; this connection waits for Started.
    Starting(Token),
    /// The program runs.
    Running,
    /// The init has ended.
    Stopped(ExitStatus),
}

/// The agent's end of the socket pair between it and an init.
#[derive(Debug)]
pub struct Channel {
    /// The socket.
    pub socket: OwnedFd,
    /// Its registration.
    pub token: Token,
}

/// A freezing or thawing under way.
#[derive(Debug)]
pub struct Freezing {
    /// The connection that waits for its end.
    pub reply_to: Token,
    /// Which of the two.
    pub frozen: bool,
    /// The cgroup's events and their registration.
    pub events: (File, Token),
}

/// The Events connections of a container.
#[derive(Debug, Default)]
pub struct Audience {
    /// The connections.
    pub connections: Vec<Token>,
    /// What they have been told: processes killed for want of memory.
    pub oom_kills: u64,
    /// The cgroup's memory events and their registration, while there are connections.
    pub events: Option<(File, Token)>,
}

/// A removal under way.
#[derive(Debug)]
pub struct Removal {
    /// The connection that waits for its end.
    pub reply_to: Token,
    /// What it is told then.
    pub response: Response,
    /// The cgroup's events and their registration.
    pub events: Option<(File, Token)>,
}
