//! The agent in the guest, as the runtime talks to it: one connection per purpose, through the VMM's socket.
//!
//! The guest is hostile: what it sends is bounded, and every wait goes through [`Wait`], which ends an exchange in time
//! however slowly its bytes come.

mod events;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::poll::PollFlags;
use serde::de::DeserializeOwned;
use stockade_protocol::agent::{
    AgentError, ErrorKind, Hello, HelloReply, ProcessCommand, ProcessId, Purpose, Request, Response, Stream,
};
use stockade_protocol::call::{Call, Response as _};
use stockade_protocol::container::StreamKind;
use stockade_protocol::frame::{self, FrameError};
use stockade_protocol::vmm::Stage;

use super::{AGENT_SOCKET, MachineError, Wait, is_of_0_1};
use crate::sys::deadline::{Bounded, Deadline};
use crate::sys::descriptors;
use crate::sys::process::Pidfd;
use crate::vm;

pub use events::Events;
pub use stockade_protocol::agent::call;

/// What is waited for.
const ANSWER: &str = "an answer of the guest's agent";
const REQUEST: &str = "the guest's agent to take a request";

/// Why the agent did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The VMM's socket is gone or does not accept.
    #[error("cannot reach the VM: {0}")]
    Connect(io::Error),
    /// What was sent or came is not a message.
    #[error("agent: {0}")]
    Frame(#[source] FrameError),
    /// The agent, or the VMM for it, closed the connection.
    #[error("the guest's agent closed the connection")]
    Closed,
    /// An answer to another question.
    #[error("the guest's agent gave an answer that does not belong to the request")]
    Unexpected,
    /// No answer is going to come.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The agent's own explanation.
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

    /// The same by a connection to the VMM's socket that is there already.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn greet(stream: UnixStream, purpose: Purpose, wait: &mut impl Wait) -> Result<Self, ClientError> {
        Self::say(stream, &Hello::new(purpose), wait)
    }

    /// Connects for requests of the newest version, which the agent of an older release refuses.
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
                Err(ClientError::Version(error))
            }
            HelloReply::Refused(error) => Err(error.into()),
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

    /// Reads one message and not a byte more: what follows the greeting on a stream is its data.
    fn receive<T: DeserializeOwned>(&mut self, wait: &mut impl Wait) -> Result<T, ClientError> {
        frame::read(&mut self.on(wait), frame::GUEST_LIMIT)?.ok_or(ClientError::Closed)
    }

    /// Asks for something and reads the answer; what the agent could not do is [`ClientError::Agent`].
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
        C::answer(response.accepted()?).ok_or(ClientError::Unexpected)
    }
}

/// Who has the host's side of a process's terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// A person's terminal, or an engine's.
    ByTerminal,
    /// Nobody: what comes out of it goes into a pipe or a file.
    ByNobody,
}

impl Watched {
    /// That of a process of the foreground, or of one whose terminal goes to a console socket.
    pub fn of(has_console_socket: bool) -> Self {
        if has_console_socket || io::stdout().is_terminal() { Self::ByTerminal } else { Self::ByNobody }
    }
}

/// The connections that stand for a process on the host.
#[derive(Debug)]
pub struct ProcessConnections {
    /// Signals one way, the end the other way.
    pub process: OwnedFd,
    /// Its stdio.
    pub stdio: Stdio,
    /// Its descriptors from 3 on.
    pub extra: Vec<OwnedFd>,
}

/// The stdio streams of a process.
#[derive(Debug)]
pub enum Stdio {
    /// stdin, stdout, stderr.
    Pipes([OwnedFd; 3]),
    /// A pseudo-terminal, both ways.
    Terminal(OwnedFd),
}

impl ProcessConnections {
    /// Opens them for a process that waits for its start and has `extra` descriptors besides its stdio.
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
            // Some bytes, for which a new connection has room.
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

/// How commands that come after `create` wait, all of whose exchanges share a deadline: they do not hold the VM's status
/// socket, and so tell a VM that works from one that hangs by its console alone.
#[derive(Debug)]
pub struct AnswerDeadline<'a> {
    /// Where the console of a VM that does not answer is looked at, if anybody wants to know.
    directory: Option<BorrowedFd<'a>>,
    deadline: Deadline,
    relay: Option<Pidfd>,
}

impl<'a> AnswerDeadline<'a> {
    /// Waits for answers from the VM whose sockets are in `directory`.
    pub fn new(directory: BorrowedFd<'a>, deadline: Deadline) -> Self {
        Self { directory: Some(directory), deadline, relay: None }
    }

    /// The same for who goes on without an answer.
    pub fn without_reason(deadline: Deadline) -> Self {
        Self { directory: None, deadline, relay: None }
    }

    /// The same, but no longer than the container's relay lives: who kills that waits for no guest.
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
        let ends = self.relay.as_ref().map(|relay| (relay, MachineError::ContainerEnded));
        if vm::wait_for((fd, flags), self.deadline, ends, None)? {
            return Ok(());
        }
        let stage = Some(Stage::AgentConnected);
        Err(MachineError::silent(what, self.deadline.length(), stage, self.directory))
    }
}

#[cfg(test)]
#[path = "agent_test.rs"]
mod tests;

#[cfg(test)]
#[path = "agent/replay_test.rs"]
mod replay_test;
