//! The runtime's side of the agent's protocol: one connection for each purpose, through the VMM's socket.
//!
//! The guest is hostile: what it sends is bounded, and every wait goes through [`Wait`], which ends an exchange in time
//! however slowly its bytes come.

mod events;
mod told;

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::poll::PollFlags;
use serde::de::DeserializeOwned;
use stockade_protocol::agent::{
    AgentError, ErrorKind, Hello, HelloReply, ProcessCommand, ProcessId, Purpose, Request, Response, Stream,
};
use stockade_protocol::call::{Call, Response as _};
use stockade_protocol::container::StreamKind;
use stockade_protocol::frame::{self, FrameError};
use stockade_protocol::vmm::Stage;

use super::patience::Patience;
use super::{AGENT_SOCKET, MachineError, Wait, is_of_0_1};
use crate::sys::deadline::{Bounded, Deadline};
use crate::sys::descriptors;
use crate::sys::process::Pidfd;
use crate::vm;

pub use events::Events;
pub use stockade_protocol::agent::call;
pub use told::warn;

/// What a command waits for, in the words of an error.
const ANSWER: &str = "an answer of the guest's agent";
const REQUEST: &str = "the guest's agent to take a request";

/// Why the agent did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The VMM's socket is gone or does not accept.
    #[error("cannot reach the VM: {0}")]
    Connect(io::Error),
    /// A message cannot be sent, or what has come is not a message.
    #[error("agent: {0}")]
    Frame(#[source] FrameError),
    /// The agent, or the VMM in its place, closed the connection.
    #[error("the guest's agent closed the connection")]
    Closed,
    /// The answer belongs to another request.
    #[error("the guest's agent gave an answer that does not belong to the request")]
    Unexpected,
    /// No answer will come.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The agent's own error.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The agent speaks other versions of the protocol.
    #[error(
        "the guest's agent, at {AGENT_SOCKET}, does not speak the protocol of this release ({0}), so another \
         release has started this VM: use that release, or delete the container and its pod with `stockade delete --force`"
    )]
    Version(AgentError),
}

impl From<FrameError> for ClientError {
    fn from(error: FrameError) -> Self {
        match error {
            // Why the wait has failed, which the connection has passed on.
            FrameError::Io(cause) => match cause.downcast::<MachineError>() {
                Ok(failure) => Self::Machine(failure),
                Err(cause) => Self::Frame(FrameError::Io(cause)),
            },
            error => Self::Frame(error),
        }
    }
}

/// A connection to the agent after its greeting.
#[derive(Debug)]
pub struct Connection(UnixStream);

impl Connection {
    /// Connects, through the socket in `directory`, for one purpose.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open(
        directory: BorrowedFd<'_>,
        purpose: Purpose,
        wait: &mut impl Wait,
    ) -> Result<Self, ClientError> {
        let stream = descriptors::connect(directory, AGENT_SOCKET).map_err(ClientError::Connect)?;
        Self::greet(stream, purpose, wait)
    }

    /// As [`Self::open`], on an existing connection to the VMM's socket.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn greet(stream: UnixStream, purpose: Purpose, wait: &mut impl Wait) -> Result<Self, ClientError> {
        Self::say(stream, &Hello::new(purpose), wait)
    }

    /// Connects for requests of the newest version; an agent of an older release refuses that.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Version`] is the refusal.
    pub fn open_newest(directory: BorrowedFd<'_>, wait: &mut impl Wait) -> Result<Self, ClientError> {
        let stream = descriptors::connect(directory, AGENT_SOCKET).map_err(ClientError::Connect)?;
        Self::say(stream, &Hello::newest(Purpose::Control), wait)
    }

    fn say(stream: UnixStream, hello: &Hello, wait: &mut impl Wait) -> Result<Self, ClientError> {
        let mut connection = Self(stream);
        wait.begin();
        frame::write(&mut connection.on(wait), hello)?;
        match connection.receive(wait)? {
            HelloReply::Welcome => Ok(connection),
            HelloReply::Refused(error) if error.kind == ErrorKind::Version => {
                Err(ClientError::Version(told::refusal(error)))
            }
            HelloReply::Refused(error) => Err(told::refusal(error).into()),
        }
    }

    fn on<'a, W: Wait>(
        &'a self,
        wait: &'a mut W,
    ) -> Bounded<'a, impl FnMut(BorrowedFd<'_>, PollFlags) -> io::Result<()>> {
        let ready = move |fd: BorrowedFd<'_>, flags: PollFlags| {
            let what = if flags == PollFlags::POLLIN { ANSWER } else { REQUEST };
            wait.ready(fd, flags, what).map_err(io::Error::other)
        };
        Bounded { stream: &self.0, ready }
    }

    /// Reads one message and not a byte more, because the bytes after the greeting are the stream's data.
    fn receive<T: DeserializeOwned>(&mut self, wait: &mut impl Wait) -> Result<T, ClientError> {
        frame::read(&mut self.on(wait), frame::GUEST_LIMIT)?.ok_or(ClientError::Closed)
    }

    /// Sends a request and reads the answer; if the agent could not do it, the error is [`ClientError::Agent`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn call<C>(&mut self, call: C, wait: &mut impl Wait) -> Result<C::Answer, ClientError>
    where
        C: Call<Request = Request, Response = Response>,
    {
        wait.begin();
        frame::write(&mut self.on(wait), &call.request())?;
        let response: Response = self.receive(wait)?;
        C::answer(response.accepted().map_err(told::refusal)?).ok_or(ClientError::Unexpected)
    }
}

/// What is on the host's side of a process's terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// A person's terminal, or an engine's.
    ByTerminal,
    /// Nobody: the output goes into a pipe or a file.
    ByNobody,
}

impl Watched {
    /// What is on the host's side for a process in the foreground, or for one whose terminal goes to a console socket.
    pub fn of(has_console_socket: bool) -> Self {
        if has_console_socket || io::stdout().is_terminal() { Self::ByTerminal } else { Self::ByNobody }
    }
}

/// The connections that stand for a process on the host.
#[derive(Debug)]
pub struct ProcessConnections {
    /// The process connection: signals to the guest, events of the process to the host.
    pub process: OwnedFd,
    /// The connections of its stdio.
    pub stdio: Stdio,
    /// The connections of its descriptors from 3 on.
    pub extra: Vec<OwnedFd>,
}

/// The stdio streams of a process.
#[derive(Debug)]
pub enum Stdio {
    /// Three pipes: stdin, stdout and stderr.
    Pipes([OwnedFd; 3]),
    /// A pseudo-terminal, in both directions.
    Terminal(OwnedFd),
}

impl ProcessConnections {
    /// Opens the connections for a process that waits for its start and has `extra` descriptors besides its stdio.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open(
        directory: BorrowedFd<'_>,
        id: &ProcessId,
        terminal: Option<Watched>,
        extra: &[StreamKind],
        wait: &mut impl Wait,
    ) -> Result<Self, ClientError> {
        let mut open = |purpose| Ok::<_, ClientError>(Connection::open(directory, purpose, wait)?.0.into());
        let process: OwnedFd = open(Purpose::Process(id.clone()))?;
        if terminal == Some(Watched::ByNobody) && !is_of_0_1(directory) {
            // The message has only some bytes, for which a new connection has room.
            frame::write(
                &mut File::from(process.try_clone().map_err(ClientError::Connect)?),
                &ProcessCommand::Plain,
            )?;
        }
        let mut stream = |stream| open(Purpose::Stream(id.clone(), stream));
        let stdio = match terminal {
            Some(_) => Stdio::Terminal(stream(Stream::Terminal)?),
            None => Stdio::Pipes([stream(Stream::Stdin)?, stream(Stream::Stdout)?, stream(Stream::Stderr)?]),
        };
        let extra = (0..=u16::MAX).zip(extra).filter(|(_, kind)| kind.is_stream());
        let extra = extra.map(|(index, _)| stream(Stream::Extra(index)));
        Ok(Self { process, stdio, extra: extra.collect::<Result<_, _>>()? })
    }
}

/// The way in which commands after `create` wait. All exchanges of a command share a deadline. These commands do not
/// have the VM's status socket, so only the console shows them whether a VM works or hangs.
#[derive(Debug)]
pub struct AnswerDeadline<'a> {
    /// The directory with the VM's sockets, to read the console of a VM that does not answer; `None` if the error needs
    /// no reason.
    directory: Option<BorrowedFd<'a>>,
    patience: Patience,
    /// Up to when the time has been counted.
    counted: Instant,
    relay: Option<Pidfd>,
    vmm: Option<&'a dyn Vmm>,
}

/// Who knows the VMM of the VM that is waited for.
pub trait Vmm: fmt::Debug {
    /// Its process, unless it has ended.
    fn process(&self) -> Option<Pidfd>;
}

impl<'a> AnswerDeadline<'a> {
    /// Waits for answers from the VM whose sockets are in `directory`.
    pub fn new(directory: BorrowedFd<'a>, deadline: Deadline) -> Self {
        Self { directory: Some(directory), ..Self::without_reason(deadline) }
    }

    /// As [`Self::new`], for a caller that goes on without an answer and needs no reason.
    pub fn without_reason(deadline: Deadline) -> Self {
        let patience = Patience::new(deadline.length(), deadline.left());
        Self { directory: None, patience, counted: Instant::now(), relay: None, vmm: None }
    }

    /// Gives a VM more time that is late because the host's processors are busy.
    #[must_use]
    pub fn while_busy(self, vmm: &'a dyn Vmm) -> Self {
        Self { vmm: Some(vmm), ..self }
    }

    /// Also ends the wait when the container's relay ends, so that killing the relay ends commands that wait for the
    /// guest.
    #[must_use]
    pub fn while_lives(self, relay: Option<Pidfd>) -> Self {
        Self { relay, ..self }
    }
}

impl Wait for AnswerDeadline<'_> {
    fn begin(&mut self) {}

    fn ready(
        &mut self,
        fd: BorrowedFd<'_>,
        flags: PollFlags,
        what: &'static str,
    ) -> Result<(), MachineError> {
        loop {
            let now = Instant::now();
            self.patience.spend(now.duration_since(std::mem::replace(&mut self.counted, now)));
            let until = self.patience.stretch();
            let ends = self.relay.as_ref().map(|relay| (relay, MachineError::ContainerEnded));
            if vm::wait_for((fd, flags), until, ends, None)? {
                return Ok(());
            }
            self.patience.spend(self.counted.elapsed());
            self.counted = Instant::now();
            if !self.patience.goes_on(self.vmm.and_then(Vmm::process).as_ref()) {
                let stage = Some(Stage::AgentConnected);
                return Err(MachineError::silent(what, self.patience.timeout(), stage, self.directory));
            }
        }
    }
}

#[cfg(test)]
#[path = "agent_test.rs"]
mod tests;

#[cfg(test)]
#[path = "agent/replay_test.rs"]
mod replay_test;
