//! Requests to the VMM on its control socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use stockade_protocol::call::{Call, Response as _};
use stockade_protocol::frame::FrameError;
use stockade_protocol::vmm::{CpuPosition, DeviceFailure, Request, Response, VERSION, call};

use super::CONTROL_SOCKET;
use super::exchange::{self, Exchange, ExchangeError, Mismatch};
use crate::sys::deadline::Deadline;
use crate::vm::CONTROL_SOCKET_OF_0_1;

/// Time limit for an answer. The VMM answers at once when its machine is complete, but that may take long on a busy
/// host.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit for reading the console while waiting for something else.
const GLANCE: Duration = Duration::from_millis(500);

/// Longest answer, in bytes: a guest that has taken over its VMM must not make the runtime buffer more.
const LIMIT: usize = 1 << 20;

/// Why the VMM did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The connection failed.
    #[error("the VMM does not answer: {0}")]
    Frame(#[from] FrameError),
    /// The VMM closed the connection.
    #[error("the VMM closed its control connection")]
    Closed,
    /// The VMM's own error.
    #[error("the VMM refused: {0}")]
    Refused(String),
    /// The answer belongs to another request.
    #[error("the VMM gave an answer that does not belong to the request")]
    Unexpected,
    /// The VMM is of a release that speaks another version.
    #[error(transparent)]
    Version(Mismatch),
}

impl From<ExchangeError> for ControlError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Frame(error) => Self::Frame(error),
            ExchangeError::Closed => Self::Closed,
            ExchangeError::Version(mismatch) => Self::Version(mismatch),
        }
    }
}

/// What the VMM tells about a VM whose guest does not answer.
#[derive(Debug, Default)]
pub struct Glance {
    /// The guest's console.
    pub console: String,
    /// What the guest's first CPU executes.
    pub cpu: Option<CpuPosition>,
    /// The devices that have failed.
    pub failures: Vec<DeviceFailure>,
}

/// A control connection.
#[derive(Debug)]
pub struct Control {
    exchange: Exchange,
    /// Time limit for one exchange.
    within: Duration,
    /// Deadline of all exchanges together.
    by: Option<Deadline>,
}

impl Control {
    /// Connects to the VMM whose sockets are in `directory`. The VMM answers once its machine runs.
    ///
    /// # Errors
    /// connect(2)'s.
    pub fn connect(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let (stream, version) = exchange::connect(directory)?;
        Self::over(stream, version, TIMEOUT)
    }

    /// As [`Self::connect`], with a deadline for all exchanges.
    ///
    /// # Errors
    /// connect(2)'s.
    pub fn connect_by(directory: BorrowedFd<'_>, deadline: Deadline) -> io::Result<Self> {
        Ok(Self { by: Some(deadline), ..Self::connect(directory)? })
    }

    /// Reads the guest's console, if the VMM, which may hang or not run yet, answers in time.
    pub fn glance_at_console(directory: BorrowedFd<'_>) -> String {
        Self::glance(directory, Deadline::within(GLANCE), call::Console())
            .map(|console| String::from_utf8_lossy(&console).into_owned())
            .unwrap_or_default()
    }

    /// Reads why the guest does not answer, if the VMM, which may hang or not run yet, answers in time.
    pub fn glance_at_all(directory: BorrowedFd<'_>) -> Glance {
        let deadline = Deadline::within(GLANCE);
        let console = Self::glance(directory, deadline, call::Console()).unwrap_or_default();
        Glance {
            console: String::from_utf8_lossy(&console).into_owned(),
            cpu: Self::glance(directory, deadline, call::Position()),
            failures: Self::glance(directory, deadline, call::Failures()).unwrap_or_default(),
        }
    }

    fn glance<C>(directory: BorrowedFd<'_>, deadline: Deadline, call: C) -> Option<C::Answer>
    where
        C: Call<Request = Request, Response = Response>,
    {
        (!deadline.left().is_zero())
            .then(|| Self::connect_by(directory, deadline).ok())?
            .and_then(|mut control| control.call(call).ok())
    }

    /// Uses an existing connection to a VMM of this release, with a deadline for all exchanges.
    ///
    /// # Errors
    /// setsockopt(2)'s.
    pub fn over_by(stream: UnixStream, deadline: Deadline) -> io::Result<Self> {
        Ok(Self { by: Some(deadline), ..Self::over(stream, VERSION, deadline.length())? })
    }

    fn over(stream: UnixStream, version: u16, within: Duration) -> io::Result<Self> {
        let socket = if version == VERSION { CONTROL_SOCKET } else { CONTROL_SOCKET_OF_0_1 };
        let exchange = Exchange::new(stream, socket, version, LIMIT, within)?;
        Ok(Self { exchange, within, by: None })
    }

    /// The deadline of an exchange that begins now.
    fn deadline(&self) -> Deadline {
        let deadline = Deadline::within(self.within);
        self.by.map_or(deadline, |by| by.or(deadline))
    }

    /// Waits for the VMM's end; false if it has not come after `timeout`.
    pub fn wait_end(&self, timeout: Duration) -> bool {
        let mut fds = [PollFd::new(self.exchange.as_fd(), PollFlags::empty())];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
    }

    /// Whether this kind of request is in the version that the VMM speaks.
    ///
    /// # Errors
    /// [`ControlError`] if not.
    pub fn has<C: Call>(&self) -> Result<(), ControlError> {
        Ok(self.exchange.has::<C>()?)
    }

    /// Sends a request and reads the answer; if the VMM could not do it, the error is [`ControlError::Refused`].
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn call<C>(&mut self, call: C) -> Result<C::Answer, ControlError>
    where
        C: Call<Request = Request, Response = Response>,
    {
        self.call_with(call, &[])
    }

    /// As [`Self::call`], with the descriptors that the request is about.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn call_with<C>(&mut self, call: C, descriptors: &[OwnedFd]) -> Result<C::Answer, ControlError>
    where
        C: Call<Request = Request, Response = Response>,
    {
        self.has::<C>()?;
        let deadline = self.deadline();
        self.exchange.send(&call.request(), descriptors, deadline)?;
        let response: Response = self.exchange.receive(deadline)?;
        C::answer(response.accepted().map_err(ControlError::Refused)?).ok_or(ControlError::Unexpected)
    }

    /// Makes the guest online memory or give it back until it has `mib` MiB; false if it does not get there: nothing
    /// has happened for `idle_timeout`, or the deadline has come.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn set_memory(
        &mut self,
        mib: u32,
        idle_timeout: Duration,
        deadline: Deadline,
    ) -> Result<bool, ControlError> {
        self.exchange.send(&Request::SetMemory { mib }, &[], self.deadline())?;
        self.exchange.welcome(self.deadline())?;
        let mut before = None;
        loop {
            let is_answer = self.exchange.has_begun()
                || deadline
                    .or(Deadline::within(idle_timeout))
                    .wait(&mut [PollFd::new(self.exchange.as_fd(), PollFlags::POLLIN)])
                    .map_err(FrameError::from)?;
            if !is_answer {
                self.exchange.send(&Request::Memory, &[], self.deadline())?;
            }
            match self.exchange.receive(self.deadline())? {
                Response::Done => return Ok(true),
                Response::Memory { mib }
                    if !is_answer && (before == Some(mib) || deadline.left().is_zero()) =>
                {
                    return Ok(false);
                }
                Response::Memory { mib } if !is_answer => before = Some(mib),
                Response::Error(reason) => return Err(ControlError::Refused(reason)),
                _ => return Err(ControlError::Unexpected),
            }
        }
    }
}
