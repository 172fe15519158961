//! The creator's side of a relay.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use stockade_sys::landlock;

use super::child;
use super::error::{RelayError, system};
use super::messages::Message;
use super::plan::Plan;
use crate::log;
use crate::sys::descriptors;
use crate::sys::process::{self, Child};
use crate::sys::selinux;
use crate::vm::agent::{ProcessConnections, Stdio};

/// How long a relay that has closed its socket may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// A relay that is being set up.
#[derive(Debug)]
pub struct Relay {
    /// Its process.
    pub process: Child,
    socket: OwnedFd,
}

impl Relay {
    /// Starts a relay.
    ///
    /// # Errors
    /// [`RelayError`].
    pub fn start(plan: &Plan<'_>) -> Result<Self, RelayError> {
        if log::is_debug()
            && let Err(cause) = landlock::version()
        {
            tracing::debug!(
                "the host's kernel has no Landlock ({cause}): seccomp alone keeps the relay from files"
            );
        }
        let (socket, its_end) = descriptors::packet_pair().map_err(system("socket"))?;
        let namespaces = plan.namespaces.namespaces()?;
        let process = namespaces
            .for_child(|flags| {
                let body = || child::run(plan, namespaces.network.as_ref().map(AsFd::as_fd), its_end.as_fd());
                // SAFETY: commands have one thread.
                Ok(unsafe { process::clone(flags, plan.cgroup, body) }?)
            })
            .map_err(system("clone3"))?;
        Ok(Self { process, socket })
    }

    /// Waits until its namespaces are ready for the host's hooks. Only a relay with hooks of `create` stops there.
    ///
    /// # Errors
    /// [`RelayError::Failed`] or [`RelayError::Died`].
    pub fn entered(&self) -> Result<(), RelayError> {
        match self.receive()? {
            Some((Message::Entered, _)) => Ok(()),
            other => Err(self.failure(other)),
        }
    }

    /// Lets the relay go on after [`Self::entered`].
    ///
    /// # Errors
    /// [`RelayError::System`].
    pub fn go_on(&self) -> Result<(), RelayError> {
        Message::GoOn.send(self.socket.as_fd()).map_err(system("socket"))
    }

    /// Waits until the relay is in place; returns the cloned trees, in the plan's order.
    ///
    /// # Errors
    /// [`RelayError::Failed`] or [`RelayError::Died`].
    pub fn prepared(&self) -> Result<Vec<OwnedFd>, RelayError> {
        let mut trees = Vec::new();
        loop {
            match self.receive()? {
                Some((Message::Trees, descriptors)) => trees.extend(descriptors),
                Some((Message::Prepared, _)) => return Ok(trees),
                other => return Err(self.failure(other)),
            }
        }
    }

    /// Whether it has the label that its plan gives; the host's policy may not allow it to change.
    pub fn has_label(&self, label: &str) -> bool {
        selinux::has(self.process.pid, label)
    }

    /// Gives the relay the connections to serve.
    ///
    /// # Errors
    /// [`RelayError::System`].
    pub fn hand_over(&self, connections: &ProcessConnections) -> Result<(), RelayError> {
        let mut raw: Vec<RawFd> = vec![connections.process.as_raw_fd()];
        match &connections.stdio {
            Stdio::Pipes(streams) => raw.extend(streams.iter().map(AsRawFd::as_raw_fd)),
            Stdio::Terminal(stream) => raw.push(stream.as_raw_fd()),
        }
        raw.extend(connections.extra.iter().map(AsRawFd::as_raw_fd));
        Message::Connections.send_with(self.socket.as_fd(), &raw).map_err(system("socket"))
    }

    fn receive(&self) -> Result<Option<(Message, Vec<OwnedFd>)>, RelayError> {
        Message::receive(self.socket.as_fd()).map_err(system("socket"))
    }

    /// The error for a message that is not the expected one.
    fn failure(&self, message: Option<(Message, Vec<OwnedFd>)>) -> RelayError {
        match message {
            Some((Message::Failed(text), _)) => RelayError::Failed(text),
            // Its end of the socket is closed, so it ends.
            _ if self.process.pidfd.wait_end(ENDS_WITHIN) && self.process.broke_its_filter() => {
                RelayError::Forbidden
            }
            _ => RelayError::Died,
        }
    }

    /// Lets the relay live on without its creator.
    ///
    /// # Errors
    /// [`RelayError::System`].
    pub fn commit(&self) -> Result<(), RelayError> {
        Message::Commit.send(self.socket.as_fd()).map_err(system("socket"))
    }

    /// As [`Self::commit`], for a process that has been started. It may have ended meanwhile, and its relay with it: that is no
    /// failure, and the relay's exit status tells the rest.
    ///
    /// # Errors
    /// [`RelayError::System`].
    pub fn commit_started(&self) -> Result<(), RelayError> {
        match Message::Commit.send(self.socket.as_fd()) {
            Err(cause) if matches!(cause.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Ok(())
            }
            sent => sent.map_err(system("socket")),
        }
    }
}
