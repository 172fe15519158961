//! The creator's side of a relay.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use super::notify::NotifySocket;
use super::stand_in;
use super::surroundings::Surroundings;
use stockade_sys::fd_passing;
use stockade_sys::landlock;

use crate::log;
use crate::relay::preserve_fds::Preserved;
use crate::sys::descriptors;
use crate::sys::process::{self, Child};
use crate::vm::agent::{ProcessConnections, Stdio};

/// First byte of a message from the relay: some of the trees, as descriptors.
pub(super) const TREES: u8 = 1;
/// First byte of a message from the relay: it is in place.
pub(super) const PREPARED: u8 = 2;
/// First byte of a message from the relay: it has failed, and why.
pub(super) const FAILED: u8 = 3;
/// First byte of a message to the relay: connections to the agent, as descriptors.
pub(super) const CONNECTIONS: u8 = 4;
/// First byte of a message to the relay: live on without your creator.
pub(super) const COMMIT: u8 = 5;

/// First byte of a message from the relay: its namespaces are as hooks should find them.
pub(super) const ENTERED: u8 = 6;
/// First byte of a message to the relay: the host's hooks have been run.
pub(super) const GO_ON: u8 = 7;

/// Longest message, in bytes.
pub(super) const MESSAGE: usize = 4096;

/// How long a relay that has closed its socket may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The network namespace is not usable.
    #[error("linux.namespaces: cannot open the network namespace {path}: {cause}")]
    Network {
        /// As given.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A system call failed.
    #[error("cannot start the container's stand-in on the host: {what}: {cause}")]
    System {
        /// What it was for.
        what: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// The relay's own explanation.
    #[error("{0}")]
    Failed(String),
    /// It made a system call that it may not make.
    #[error(
        "the relay of the container was killed by SIGSYS: it made a system call that its seccomp filter does not allow; \
         the kernel's log has its number (audit, type 1326)"
    )]
    Forbidden,
    /// It died without one.
    #[error(
        "the container's stand-in on the host died while it was being set up (killed, or out of memory?)"
    )]
    Died,
}

pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> RelayError {
    move |cause| RelayError::System { what, cause }
}

/// What a relay is to be.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What callers find around it.
    pub surroundings: Surroundings<'a>,
    /// What `ps` shows.
    pub args: &'a [String],
    /// Its cgroup's folder.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The process has a terminal, so size changes are passed on.
    pub terminal: bool,
    /// The terminal to sit on; without it stdio is inherited.
    pub slave: Option<BorrowedFd<'a>>,
    /// Descriptors that it relays besides stdio.
    pub preserved: &'a Preserved,
    /// Where the container's notifications go.
    pub notify: Option<&'a NotifySocket>,
}

/// A relay that is being set up.
#[derive(Debug)]
pub struct Relay {
    /// Its process.
    pub process: Child,
    socket: OwnedFd,
}

impl Relay {
    /// Starts one.
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
        let namespaces = plan.surroundings.namespaces()?;
        let process = namespaces
            .for_child(|flags| {
                let body =
                    || stand_in::run(plan, namespaces.network.as_ref().map(AsFd::as_fd), its_end.as_fd());
                // SAFETY: commands have one thread.
                Ok(unsafe { process::clone(flags, plan.cgroup, body) }?)
            })
            .map_err(system("clone3"))?;
        Ok(Self { process, socket })
    }

    /// Waits until its namespaces are as the host's hooks should find them. Only a relay with [`CreateHooks`] stops there.
    ///
    /// # Errors
    /// [`RelayError::Failed`] or [`RelayError::Died`].
    pub fn entered(&self) -> Result<(), RelayError> {
        let mut buffer = [0; MESSAGE];
        let (length, _) = descriptors::receive(self.socket.as_fd(), &mut buffer).map_err(system("socket"))?;
        match buffer[..length].split_first() {
            Some((&ENTERED, _)) => Ok(()),
            other => Err(self.failure(other)),
        }
    }

    /// Lets it go on from there.
    ///
    /// # Errors
    /// [`RelayError::System`].
    pub fn go_on(&self) -> Result<(), RelayError> {
        fd_passing::send(self.socket.as_fd(), &[GO_ON], &[]).map_err(system("socket"))
    }

    /// Waits until it is in place; returns the cloned trees, in the plan's order.
    ///
    /// # Errors
    /// [`RelayError::Failed`] or [`RelayError::Died`].
    pub fn prepared(&self) -> Result<Vec<OwnedFd>, RelayError> {
        let mut trees = Vec::new();
        let mut buffer = [0; MESSAGE];
        loop {
            let (length, descriptors) =
                descriptors::receive(self.socket.as_fd(), &mut buffer).map_err(system("socket"))?;
            match buffer[..length].split_first() {
                Some((&TREES, _)) => trees.extend(descriptors),
                Some((&PREPARED, _)) => return Ok(trees),
                other => return Err(self.failure(other)),
            }
        }
    }

    /// Gives it the connections to serve.
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
        fd_passing::send(self.socket.as_fd(), &[CONNECTIONS], &raw).map_err(system("socket"))
    }

    /// What a message that is not the expected one tells.
    fn failure(&self, message: Option<(&u8, &[u8])>) -> RelayError {
        match message {
            Some((&FAILED, text)) => RelayError::Failed(String::from_utf8_lossy(text).into_owned()),
            // Its end of the socket is closed, so it ends.
            _ if self.process.pidfd.wait_end(ENDS_WITHIN) && self.process.broke_its_filter() => {
                RelayError::Forbidden
            }
            _ => RelayError::Died,
        }
    }

    /// Lets it live on without its creator.
    ///
    /// # Errors
    /// [`RelayError::System`].
    pub fn commit(&self) -> Result<(), RelayError> {
        fd_passing::send(self.socket.as_fd(), &[COMMIT], &[]).map_err(system("socket"))
    }
}
