//! A container's status for the host: it follows from which processes live and from what commands have recorded. No
//! guest is asked.

use std::os::fd::AsFd;
use std::time::Duration;

use stockade_protocol::agent::{ContainerState, Purpose};

use crate::state::{Directory, Record};
use crate::sys::deadline::Deadline;
use crate::vm::agent::{AnswerDeadline, ClientError, Connection, call};

/// How long the agent may take to say that a container has ended while its relay lives.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// The states of the runtime specification, and `paused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `create` is still making the container.
    Creating,
    /// The container waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// The container or its VM has ended.
    Stopped,
}

impl Status {
    /// The status in the form of the state JSON.
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

/// The container's status now.
pub fn status(directory: &Directory, record: &Record) -> Status {
    if !record.complete {
        // A creator holds the directory's lock. If it has died, its relay will notice that soon.
        return if directory.is_busy() { Status::Creating } else { Status::Stopped };
    }
    let relay_lives = record.relay.is_some_and(|relay| relay.is_alive());
    // The VM has ended, and so has the container; its relay will notice that soon.
    if !relay_lives || !vm_lives(directory, record) {
        return Status::Stopped;
    }
    match (record.paused, record.started) {
        (true, _) => Status::Paused,
        (false, true) => Status::Running,
        (false, false) => Status::Created,
    }
}

fn vm_lives(directory: &Directory, record: &Record) -> bool {
    let vmm = match &record.sandbox {
        Some(sandbox) => directory.neighbour(sandbox).and_then(|sandbox| sandbox.vmm),
        None => record.vmm,
    };
    vmm.is_some_and(|vmm| vmm.is_alive())
}

/// Whether a container has ended in the guest while its relay still delivers its output.
pub fn has_ended_in_guest(directory: &Directory, record: &Record) -> bool {
    matches!(ask(directory, record, Deadline::within(ANSWERS_WITHIN)), Ok(ContainerState::Stopped(_)))
}

/// Whether the guest of a container answers by then.
pub fn answers(directory: &Directory, record: &Record, deadline: Deadline) -> bool {
    matches!(ask(directory, record, deadline), Ok(_) | Err(ClientError::Agent(_)))
}

fn ask(directory: &Directory, record: &Record, deadline: Deadline) -> Result<ContainerState, ClientError> {
    let mut wait = AnswerDeadline::without_reason(deadline);
    let mut control = Connection::open(directory.as_fd(), Purpose::Control, &mut wait)?;
    control.call(call::State(record.id.clone()), &mut wait)
}
