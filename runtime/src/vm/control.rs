//! Requests to the VMM on its control socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use stockade_protocol::frame::{self, FrameError};
use stockade_protocol::vmm::{CpuPosition, DeviceFailure, Disk, Figures, Nic, Request, Response, ThreadTime};
use stockade_sys::fd_passing;

use super::CONTROL_SOCKET;
use crate::sys::deadline::Deadline;
use crate::sys::descriptors;

/// The VMM answers at once, but only when its machine is complete, which on a busy host takes its time.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a look at the console may take of a wait for something else.
const GLANCE: Duration = Duration::from_millis(500);

/// Longest answer, in bytes: a guest that has taken over its VMM must not make the runtime buffer more.
const LONGEST: usize = 1 << 20;

/// Why the VMM did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The connection failed.
    #[error("the VMM does not answer: {0}")]
    Frame(#[from] FrameError),
    /// The VMM closed the connection.
    #[error("the VMM closed its control connection")]
    Closed,
    /// The VMM's own explanation.
    #[error("the VMM refused: {0}")]
    Refused(String),
    /// An answer to another question.
    #[error("the VMM gave an answer that does not belong to the request")]
    Unexpected,
}

/// What can be seen of a VM from outside.
#[derive(Debug, Default)]
pub struct Glance {
    /// The guest's console.
    pub console: String,
    /// Where the guest's first CPU is.
    pub cpu: Option<CpuPosition>,
    /// Which devices have failed.
    pub failures: Vec<DeviceFailure>,
}

/// A control connection.
#[derive(Debug)]
pub struct Control {
    stream: UnixStream,
    /// How long an exchange may take.
    within: Duration,
    /// When all of them have to be over.
    by: Option<Deadline>,
}

impl Control {
    /// Connects to the VMM whose sockets are in `folder`. It answers once it is running.
    ///
    /// # Errors
    /// connect(2)'s.
    pub fn connect(folder: BorrowedFd<'_>) -> io::Result<Self> {
        Self::over(descriptors::connect(folder, CONTROL_SOCKET)?, TIMEOUT)
    }

    /// The same for what has to be over by then.
    ///
    /// # Errors
    /// connect(2)'s.
    pub fn connect_by(folder: BorrowedFd<'_>, deadline: Deadline) -> io::Result<Self> {
        Ok(Self { by: Some(deadline), ..Self::connect(folder)? })
    }

    /// The guest's console, as far as a VMM that may hang or not run yet gives it.
    pub fn glance_at_console(folder: BorrowedFd<'_>) -> String {
        Self::glance(folder, Deadline::within(GLANCE), Self::console)
            .map(|console| String::from_utf8_lossy(&console).into_owned())
            .unwrap_or_default()
    }

    /// What a VMM that may hang or not run yet tells of why its guest does not answer.
    pub fn glance_at_all(folder: BorrowedFd<'_>) -> Glance {
        let deadline = Deadline::within(GLANCE);
        let console = Self::glance(folder, deadline, Self::console).unwrap_or_default();
        Glance {
            console: String::from_utf8_lossy(&console).into_owned(),
            cpu: Self::glance(folder, deadline, Self::position),
            failures: Self::glance(folder, deadline, Self::failures).unwrap_or_default(),
        }
    }

    fn glance<T>(
        folder: BorrowedFd<'_>,
        deadline: Deadline,
        look: impl FnOnce(&mut Self) -> Result<T, ControlError>,
    ) -> Option<T> {
        (!deadline.left().is_zero())
            .then(|| Self::connect_by(folder, deadline).ok())?
            .and_then(|mut control| look(&mut control).ok())
    }

    fn position(&mut self) -> Result<CpuPosition, ControlError> {
        match self.ask(&Request::Position)? {
            Response::Position(position) => Ok(position),
            _ => Err(ControlError::Unexpected),
        }
    }

    /// A connection that is there already; no exchange on it may take longer than `within`.
    ///
    /// # Errors
    /// setsockopt(2)'s.
    pub fn over(stream: UnixStream, within: Duration) -> io::Result<Self> {
        // For what is sent with descriptors, in one piece.
        stream.set_write_timeout(Some(within))?;
        Ok(Self { stream, within, by: None })
    }

    /// The same for what has to be over by then.
    ///
    /// # Errors
    /// setsockopt(2)'s.
    pub fn over_by(stream: UnixStream, deadline: Deadline) -> io::Result<Self> {
        Ok(Self { by: Some(deadline), ..Self::over(stream, deadline.length())? })
    }

    /// When an exchange that begins now has to be over.
    fn deadline(&self) -> Deadline {
        let deadline = Deadline::within(self.within);
        self.by.map_or(deadline, |by| by.or(deadline))
    }

    /// Waits for the VMM's end; false if it has not come after `timeout`.
    pub fn wait_end(&self, timeout: Duration) -> bool {
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
    }

    fn ask(&mut self, request: &Request) -> Result<Response, ControlError> {
        let deadline = self.deadline();
        frame::write(&mut deadline.on(&self.stream), request)?;
        self.answer(deadline)
    }

    /// As [`Control::ask`], with descriptors that the request is about.
    fn ask_with(&mut self, request: &Request, descriptors: &[OwnedFd]) -> Result<Response, ControlError> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let deadline = self.deadline();
        fd_passing::send(self.stream.as_fd(), &frame::encode(request)?, &raw).map_err(FrameError::from)?;
        self.answer(deadline)
    }

    fn answer(&mut self, deadline: Deadline) -> Result<Response, ControlError> {
        match frame::read(&mut deadline.on(&self.stream), LONGEST)?.ok_or(ControlError::Closed)? {
            Response::Error(reason) => Err(ControlError::Refused(reason)),
            response => Ok(response),
        }
    }

    /// Puts a network device on these taps into a free slot; returns the slot.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn add_nic(&mut self, nic: Nic, taps: &[OwnedFd]) -> Result<u8, ControlError> {
        match self.ask_with(&Request::AddNic(nic), taps)? {
            Response::Slot(slot) => Ok(slot),
            _ => Err(ControlError::Unexpected),
        }
    }

    /// Puts a disk on this file or block device into a free slot; returns the slot.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn add_disk(&mut self, disk: Disk, backing: OwnedFd) -> Result<u8, ControlError> {
        match self.ask_with(&Request::AddDisk(disk), &[backing])? {
            Response::Slot(slot) => Ok(slot),
            _ => Err(ControlError::Unexpected),
        }
    }

    /// Takes a device out of its slot.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn remove_device(&mut self, slot: u8) -> Result<(), ControlError> {
        match self.ask(&Request::RemoveDevice { slot })? {
            Response::Done => Ok(()),
            _ => Err(ControlError::Unexpected),
        }
    }

    /// Has the guest take memory into use or give it back until it has `mib` MiB; false if it has come to a halt before,
    /// which is to say that nothing has happened for `patience`, or is not done by the deadline.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn set_memory(
        &mut self,
        mib: u32,
        patience: Duration,
        deadline: Deadline,
    ) -> Result<bool, ControlError> {
        frame::write(&mut self.deadline().on(&self.stream), &Request::SetMemory { mib })?;
        let mut before = None;
        loop {
            let is_answer = deadline
                .or(Deadline::within(patience))
                .wait(&mut [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)])
                .map_err(FrameError::from)?;
            if !is_answer {
                frame::write(&mut self.deadline().on(&self.stream), &Request::Memory)?;
            }
            match frame::read(&mut self.deadline().on(&self.stream), LONGEST)?.ok_or(ControlError::Closed)? {
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

    /// Gives the machine at least this many vCPUs.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn add_vcpus(&mut self, count: u8) -> Result<(), ControlError> {
        match self.ask(&Request::AddVcpus { count })? {
            Response::Done => Ok(()),
            _ => Err(ControlError::Unexpected),
        }
    }

    /// What the guest has, in MiB.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn memory_mib(&mut self) -> Result<u32, ControlError> {
        match self.ask(&Request::Memory)? {
            Response::Memory { mib } => Ok(mib),
            _ => Err(ControlError::Unexpected),
        }
    }

    /// The guest's console, as far as the VMM keeps it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn console(&mut self) -> Result<Vec<u8>, ControlError> {
        match self.ask(&Request::Console)? {
            Response::Console(bytes) => Ok(bytes),
            _ => Err(ControlError::Unexpected),
        }
    }

    /// The last failure of each device that has failed.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn failures(&mut self) -> Result<Vec<DeviceFailure>, ControlError> {
        match self.ask(&Request::Failures)? {
            Response::Failures(failures) => Ok(failures),
            _ => Err(ControlError::Unexpected),
        }
    }

    /// The CPU times of the VMM's threads and of its file server.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn threads(&mut self) -> Result<Vec<ThreadTime>, ControlError> {
        match self.ask(&Request::Threads)? {
            Response::Threads(threads) => Ok(threads),
            _ => Err(ControlError::Unexpected),
        }
    }

    /// The VMM's figures.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn figures(&mut self) -> Result<Figures, ControlError> {
        match self.ask(&Request::Figures)? {
            Response::Figures(figures) => Ok(figures),
            _ => Err(ControlError::Unexpected),
        }
    }
}
