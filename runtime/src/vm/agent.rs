//! The agent in the guest, as the runtime talks to it: one connection per purpose, through the VMM's socket.
//!
//! The guest is hostile: what it sends is bounded, and every wait goes through [`Wait`], which ends an exchange in time
//! however slowly its bytes come.

mod events;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stockade_protocol::agent::{
    AgentError, ContainerState, Exec, Hello, HelloReply, MOST_CONTAINERS, MOST_PROCESSES, ProcessEntry,
    ProcessId, Purpose, Request, Response, Stream,
};
use stockade_protocol::container::Container;
use stockade_protocol::frame::{self, FrameError};
use stockade_protocol::network::NetworkChange;
use stockade_protocol::vmm::Stage;

use super::AGENT_SOCKET;
use super::{MachineError, Wait};
use crate::sys::deadline::{self, Deadline};
use crate::sys::descriptors;
use crate::sys::process::Pidfd;

pub use events::Events;

/// Why the agent did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The VMM's socket is gone or does not accept.
    #[error("cannot reach the VM: {0}")]
    Connect(io::Error),
    /// What was sent or came is not a message.
    #[error("agent: {0}")]
    Frame(#[from] FrameError),
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
}

/// A connection to the agent after its greeting.
#[derive(Debug)]
pub struct Connection(UnixStream);

impl Connection {
    /// Connects, through the socket in `folder`, for one purpose.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open(folder: BorrowedFd<'_>, purpose: Purpose, wait: &mut impl Wait) -> Result<Self, ClientError> {
        let stream = descriptors::connect(folder, AGENT_SOCKET).map_err(ClientError::Connect)?;
        Self::greet(stream, purpose, wait)
    }

    /// The same by a connection to the VMM's socket that is there already.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn greet(stream: UnixStream, purpose: Purpose, wait: &mut impl Wait) -> Result<Self, ClientError> {
        let mut connection = Self(stream);
        wait.begin();
        connection.send(&Hello::new(purpose), wait)?;
        match connection.receive(wait)? {
            HelloReply::Welcome => Ok(connection),
            HelloReply::Refused(error) => Err(error.into()),
        }
    }

    fn send<T: Serialize>(&mut self, message: &T, wait: &mut impl Wait) -> Result<(), ClientError> {
        let mut writer = Patient { stream: &self.0, wait, failure: None };
        let written = frame::write(&mut writer, message);
        match writer.failure.take() {
            Some(failure) => Err(failure.into()),
            None => Ok(written?),
        }
    }

    /// Reads one message and not a byte more: what follows the greeting on a stream is its data.
    fn receive<T: DeserializeOwned>(&mut self, wait: &mut impl Wait) -> Result<T, ClientError> {
        let mut reader = Patient { stream: &self.0, wait, failure: None };
        let message = frame::read(&mut reader, frame::GUEST_LIMIT);
        match reader.failure.take() {
            Some(failure) => Err(failure.into()),
            None => message?.ok_or(ClientError::Closed),
        }
    }

    /// Sends a request and reads its answer; one that the agent could not fulfil is [`ClientError::Agent`].
    fn ask(&mut self, request: &Request, wait: &mut impl Wait) -> Result<Response, ClientError> {
        wait.begin();
        self.send(request, wait)?;
        match self.receive(wait)? {
            Response::Error(error) => Err(error.into()),
            response => Ok(response),
        }
    }

    /// Builds a container; returns the agent's warnings.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn create(&mut self, container: Container, wait: &mut impl Wait) -> Result<Vec<String>, ClientError> {
        match self.ask(&Request::Create(Box::new(container)), wait)? {
            Response::Created { warnings, .. } => Ok(warnings),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Makes another process in a container; returns the agent's warnings.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn exec(&mut self, exec: Exec, wait: &mut impl Wait) -> Result<Vec<String>, ClientError> {
        match self.ask(&Request::Exec(Box::new(exec)), wait)? {
            Response::Created { warnings, .. } => Ok(warnings),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Lets a created process execute its program.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn start(&mut self, process: &ProcessId, wait: &mut impl Wait) -> Result<(), ClientError> {
        match self.ask(&Request::Start(process.clone()), wait)? {
            Response::Started => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Kills what is left of a container and forgets it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn delete(&mut self, container: &str, wait: &mut impl Wait) -> Result<(), ClientError> {
        match self.ask(&Request::Delete { container: container.to_owned() }, wait)? {
            Response::Deleted => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Freezes a container's processes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn pause(&mut self, container: &str, wait: &mut impl Wait) -> Result<(), ClientError> {
        match self.ask(&Request::Pause { container: container.to_owned() }, wait)? {
            Response::Paused => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn resume(&mut self, container: &str, wait: &mut impl Wait) -> Result<(), ClientError> {
        match self.ask(&Request::Resume { container: container.to_owned() }, wait)? {
            Response::Resumed => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// A container's processes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn processes(
        &mut self,
        container: &str,
        wait: &mut impl Wait,
    ) -> Result<Vec<ProcessEntry>, ClientError> {
        match self.ask(&Request::Processes { container: container.to_owned() }, wait)? {
            Response::Processes(processes) if processes.len() <= MOST_PROCESSES => Ok(processes),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// The IDs of the guest's containers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn containers(&mut self, wait: &mut impl Wait) -> Result<Vec<String>, ClientError> {
        match self.ask(&Request::Containers, wait)? {
            Response::Containers(containers) if containers.len() <= MOST_CONTAINERS => Ok(containers),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// The files of a container's cgroup: name and content.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn cgroup_files(
        &mut self,
        container: &str,
        wait: &mut impl Wait,
    ) -> Result<Vec<(String, String)>, ClientError> {
        match self.ask(&Request::CgroupFiles { container: container.to_owned() }, wait)? {
            Response::CgroupFiles(files) => Ok(files),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Writes files of a container's cgroup.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn update(
        &mut self,
        container: &str,
        values: Vec<(String, String)>,
        wait: &mut impl Wait,
    ) -> Result<(), ClientError> {
        match self.ask(&Request::Update { container: container.to_owned(), values }, wait)? {
            Response::Updated => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Changes the guest's network.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn network(&mut self, change: NetworkChange, wait: &mut impl Wait) -> Result<(), ClientError> {
        match self.ask(&Request::Network(Box::new(change)), wait)? {
            Response::NetworkChanged => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Has the guest use this many CPUs.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn set_cpus(&mut self, count: u8, wait: &mut impl Wait) -> Result<(), ClientError> {
        match self.ask(&Request::SetCpus { count: count.into() }, wait)? {
            Response::CpusSet => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Sends a signal to a container's init, or to all of its processes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn signal(
        &mut self,
        container: &str,
        signal: i32,
        all: bool,
        wait: &mut impl Wait,
    ) -> Result<(), ClientError> {
        match self.ask(&Request::Signal { container: container.to_owned(), signal, all }, wait)? {
            Response::Signalled => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// How a container is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn state(&mut self, container: &str, wait: &mut impl Wait) -> Result<ContainerState, ClientError> {
        match self.ask(&Request::State { container: container.to_owned() }, wait)? {
            Response::State(state) => Ok(state),
            _ => Err(ClientError::Unexpected),
        }
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
    /// Opens them for a process that waits for its start and has `extra` streams besides its stdio.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open(
        folder: BorrowedFd<'_>,
        id: &ProcessId,
        terminal: bool,
        extra: usize,
        wait: &mut impl Wait,
    ) -> Result<Self, ClientError> {
        let mut open = |purpose| Ok::<_, ClientError>(Connection::open(folder, purpose, wait)?.0.into());
        let process = open(Purpose::Process(id.clone()))?;
        let mut stream = |stream| open(Purpose::Stream(id.clone(), stream));
        let stdio = if terminal {
            Stdio::Terminal(stream(Stream::Terminal)?)
        } else {
            Stdio::Pipes([stream(Stream::Stdin)?, stream(Stream::Stdout)?, stream(Stream::Stderr)?])
        };
        let extra = (0..=u16::MAX).take(extra).map(|index| stream(Stream::Extra(index)));
        Ok(Self { process, stdio, extra: extra.collect::<Result<_, _>>()? })
    }
}

/// A connection that waits with [`Wait`] before it reads or writes.
struct Patient<'a, W> {
    stream: &'a UnixStream,
    wait: &'a mut W,
    failure: Option<MachineError>,
}

impl<W: Wait> Patient<'_, W> {
    fn ready(&mut self, flags: PollFlags, what: &'static str) -> io::Result<()> {
        self.wait.ready(self.stream.as_fd(), flags, what).map_err(|failure| {
            self.failure = Some(failure);
            io::ErrorKind::TimedOut.into()
        })
    }
}

impl<W: Wait> Read for Patient<'_, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.ready(PollFlags::POLLIN, "an answer of the guest's agent")?;
            if let Some(length) = deadline::receive(self.stream, buffer)? {
                return Ok(length);
            }
        }
    }
}

impl<W: Wait> Write for Patient<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.ready(PollFlags::POLLOUT, "the guest's agent to take a request")?;
            if let Some(length) = deadline::transmit(self.stream, bytes)? {
                return Ok(length);
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How commands that come after `create` wait, all of whose exchanges share a deadline: they do not hold the VM's status
/// socket, and so tell a VM that works from one that hangs by its console alone.
#[derive(Debug)]
pub struct Visitor<'a> {
    /// Where the console of a VM that does not answer is looked at, if anybody wants to know.
    folder: Option<BorrowedFd<'a>>,
    deadline: Deadline,
    relay: Option<Pidfd>,
}

impl<'a> Visitor<'a> {
    /// Waits for answers from the VM whose sockets are in `folder`.
    pub fn new(folder: BorrowedFd<'a>, deadline: Deadline) -> Self {
        Self { folder: Some(folder), deadline, relay: None }
    }

    /// The same for who goes on without an answer.
    pub fn without_reason(deadline: Deadline) -> Self {
        Self { folder: None, deadline, relay: None }
    }

    /// The same, but no longer than the container's relay lives: who kills that waits for no guest.
    #[must_use]
    pub fn while_lives(self, relay: Option<Pidfd>) -> Self {
        Self { relay, ..self }
    }
}

impl Wait for Visitor<'_> {
    fn begin(&mut self) {}

    fn ready(
        &mut self,
        fd: BorrowedFd<'_>,
        flags: PollFlags,
        what: &'static str,
    ) -> Result<(), MachineError> {
        let mut fds = vec![PollFd::new(fd, flags)];
        fds.extend(self.relay.as_ref().map(|relay| PollFd::new(relay.as_fd(), PollFlags::POLLIN)));
        if !self.deadline.wait(&mut fds)? {
            let stage = Some(Stage::AgentConnected);
            return Err(MachineError::silent(what, self.deadline.length(), stage, self.folder));
        }
        match fds[0].any() {
            Some(false) => Err(MachineError::ContainerEnded),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "agent_test.rs"]
mod tests;
