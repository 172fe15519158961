//! How a container is: derived from who is alive, never stored.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use stockade_protocol::agent::{ContainerState, Purpose};

use super::visit::ANSWERS_WITHIN;
use crate::agent::{ClientError, Connection, Visitor};
use crate::machine::MachineError;
use crate::state::{Folder, Record};

/// The states of the runtime specification, and `paused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `create` is at work.
    Creating,
    /// It waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It has ended, or its VM has.
    Stopped,
}

impl Status {
    /// The word in state JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// How the container is now.
pub fn status(folder: &Folder, record: &Record) -> Status {
    status_within(folder, record, ANSWERS_WITHIN)
}

/// How the container is now, as far as its agent says so in time.
pub fn status_within(folder: &Folder, record: &Record, patience: Duration) -> Status {
    if !record.complete {
        // A creator holds the folder. Where it has died, its relay may just be about to notice.
        return if folder.is_busy() { Status::Creating } else { Status::Stopped };
    }
    if !record.relay.is_some_and(|relay| relay.is_alive()) {
        return Status::Stopped;
    }
    let mut wait = Visitor::new(folder.as_fd(), patience);
    let state = Connection::open(folder.as_fd(), Purpose::Control, &mut wait)
        .and_then(|mut control| control.state(&record.id, &mut wait));
    match state {
        Ok(ContainerState::Created) => Status::Created,
        Ok(ContainerState::Running) => Status::Running,
        Ok(ContainerState::Paused) => Status::Paused,
        Ok(ContainerState::Stopped(_)) => Status::Stopped,
        // Its VM hangs: for the host it has not ended.
        Err(ClientError::Machine(MachineError::Silent { .. })) => Status::Running,
        Err(ClientError::Connect(cause)) if cause.kind() == io::ErrorKind::TimedOut => Status::Running,
        // Its VM is gone, and its relay is about to notice.
        Err(_) => Status::Stopped,
    }
}
