//! A command on an existing container: finding the container, checking whether it lives, and asking its agent.

use std::os::fd::AsFd;
use std::time::Duration;

use stockade_protocol::agent::{ErrorKind, Purpose, Request, Response};
use stockade_protocol::call::Call;

use super::{Status, status};
use crate::log;
use crate::oci::container_id::ContainerId;
use crate::options::Globals;
use crate::state::{ContainerError, Directory, Record, Root};
use crate::sys::deadline::Deadline;
use crate::sys::process::{Pidfd, ProcessRef};
use crate::vm::MachineError;
use crate::vm::agent::{AnswerDeadline, ClientError, Connection, Vmm};

/// How long the agent may take for all requests of one command together.
pub const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// A container that a command looks at.
#[derive(Debug)]
pub struct Handle {
    /// Its ID.
    pub id: ContainerId,
    /// Its directory.
    pub directory: Directory,
    /// Its record.
    pub record: Record,
    deadline: Deadline,
}

impl Handle {
    /// Opens a container without waiting for a command that changes it.
    ///
    /// # Errors
    /// [`ContainerError::DoesNotExist`], or why its state cannot be read.
    pub fn peek(globals: &Globals, id: &str) -> anyhow::Result<Self> {
        let id: ContainerId = id.parse()?;
        let directory = Root::new(globals.root.as_deref()).peek(&id)?;
        Self::new(id, directory)
    }

    /// Opens and locks a container for a change: two commands that change it take turns.
    ///
    /// # Errors
    /// As [`Handle::peek`].
    pub fn lock(globals: &Globals, id: &str) -> anyhow::Result<Self> {
        let id: ContainerId = id.parse()?;
        let directory = Root::new(globals.root.as_deref()).open(&id)?;
        Self::new(id, directory)
    }

    fn new(id: ContainerId, directory: Directory) -> anyhow::Result<Self> {
        match directory.read()? {
            Some(record) => {
                log::about(id.as_str(), record.sandbox.as_deref());
                Ok(Self { id, directory, record, deadline: Deadline::within(ANSWERS_WITHIN) })
            }
            // Its creator died before it had made anything.
            None => Err(ContainerError::DoesNotExist(id.to_string()).into()),
        }
    }

    /// The container's relay on the host.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`] if it has ended or was never complete.
    pub fn relay(&self) -> Result<ProcessRef, ContainerError> {
        let alive = self.record.relay.filter(|relay| self.record.complete && relay.is_alive());
        alive.ok_or(ContainerError::NotRunning)
    }

    /// The process of its VMM; for a member of a pod, that of its sandbox.
    pub fn vmm(&self) -> Option<Pidfd> {
        let vmm = match &self.record.sandbox {
            Some(sandbox) => self.directory.neighbour(sandbox)?.vmm,
            None => self.record.vmm,
        };
        vmm?.open()
    }

    /// The container's status now.
    pub fn status(&self) -> Status {
        status(&self.directory, &self.record)
    }

    /// The way in which this command waits for the container's agent.
    pub fn wait(&self) -> AnswerDeadline<'_> {
        self.wait_until(self.deadline)
    }

    /// As [`Self::wait`], with a deadline of its own: for one of many requests of a command that goes on for long.
    pub fn wait_until(&self, deadline: Deadline) -> AnswerDeadline<'_> {
        let relay = self.record.relay.and_then(|relay| relay.open());
        AnswerDeadline::new(self.directory.as_fd(), deadline).while_lives(relay).while_busy(self)
    }

    /// Sends one request to the container's agent.
    ///
    /// # Errors
    /// [`ClientError`]; [`no_longer_runs`] tells which of them mean that the container has ended.
    pub fn ask<C>(&self, call: C) -> Result<C::Answer, ClientError>
    where
        C: Call<Request = Request, Response = Response>,
    {
        self.ask_by(self.deadline, call)
    }

    /// As [`Self::ask`], with another deadline than the command's.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask_by<C>(&self, deadline: Deadline, call: C) -> Result<C::Answer, ClientError>
    where
        C: Call<Request = Request, Response = Response>,
    {
        let mut wait = self.wait_until(deadline);
        Connection::open(self.directory.as_fd(), Purpose::Control, &mut wait)?.call(call, &mut wait)
    }
}

impl Vmm for Handle {
    fn process(&self) -> Option<Pidfd> {
        self.vmm()
    }
}

/// Whether the agent could not do something because the container has ended.
pub fn no_longer_runs(error: &ClientError) -> bool {
    match error {
        ClientError::Agent(error) => matches!(error.kind, ErrorKind::NoProcess | ErrorKind::NotFound),
        ClientError::Machine(MachineError::ContainerEnded) => true,
        _ => false,
    }
}

/// Translates the agent's error into the command's: a container that has ended is "not running".
pub fn explain(error: ClientError) -> anyhow::Error {
    if no_longer_runs(&error) { ContainerError::NotRunning.into() } else { error.into() }
}
