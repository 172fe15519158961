//! Following a VM while it boots: every wait of `create` goes through here, so that each ends when the VM dies, when a
//! signal asks the command to stop, or when nothing has happened for too long.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use stockade_protocol::agent::{MAGIC, OLDEST_VERSION, Ready, VERSION};
use stockade_protocol::frame::{self, FrameBuffer};
use stockade_protocol::vmm::{STATUS_LIMIT, Stage, Status};

use super::files::{Files, FilesError};
use super::patience::{MAX_TIMEOUT, Starvation};
use super::template::{self, Useless};
use super::wait::{Wait, interruption};
use super::{Control, MachineError};
use crate::sys::deadline::Deadline;
use crate::sys::descriptors;
use crate::sys::process::Child;
use crate::text::table::printable;

/// A boot has failed if there is no new stage and no console output for this long. A healthy guest is silent for
/// milliseconds only, but on a host whose processors are all busy that takes many times as long: the time begins anew if that
/// is what delays the VM ([`Starvation`]).
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// How often the console is asked for while nothing else happens.
const GLANCE: Duration = Duration::from_millis(2500);

/// How long a VM may take to report why its file server has gone.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// The reason for the end of a VMM that has not reported one.
pub const DIED_SILENTLY: &str = "the VMM died without a message (killed, or out of memory?)";

/// A VM that boots or runs, for the command that has started it.
#[derive(Debug)]
pub struct Machine {
    /// The VMM's process.
    pub vmm: Child,
    status: OwnedFd,
    ready: UnixStream,
    kernel: PathBuf,
    /// The directory of the template as whose clone its guest begins.
    template: Option<PathBuf>,
    is_saved: bool,
    stage: Option<Stage>,
    directory: Option<OwnedFd>,
    interrupts: Option<SignalFd>,
    console_length: usize,
    starvation: Starvation,
    /// How long nothing may happen.
    timeout: Duration,
    /// When the current exchange has failed if nothing happens until then.
    deadline: Deadline,
    /// When the current exchange has failed in any case.
    last: Deadline,
}

/// What a poll has found.
#[derive(Default)]
struct Found {
    status: bool,
    wanted: bool,
    signal: bool,
}

impl Machine {
    pub(super) fn new(
        vmm: Child,
        status: OwnedFd,
        ready: UnixStream,
        kernel: PathBuf,
        template: Option<PathBuf>,
    ) -> Self {
        Self {
            vmm,
            status,
            ready,
            kernel,
            template,
            is_saved: false,
            stage: None,
            directory: None,
            interrupts: None,
            console_length: 0,
            starvation: Starvation::default(),
            timeout: TIMEOUT,
            deadline: Deadline::within(TIMEOUT),
            last: Deadline::within(MAX_TIMEOUT),
        }
    }

    /// Sets the directory with the VMM's sockets, to read the console, and the signals that end every wait.
    ///
    /// # Errors
    /// When no descriptors are left.
    pub fn watch_with(&mut self, directory: BorrowedFd<'_>, interrupts: SignalFd) -> io::Result<()> {
        self.directory = Some(directory.try_clone_to_owned()?);
        self.interrupts = Some(interrupts);
        Ok(())
    }

    /// The lease, which goes to the relay: the VMM lives while somebody holds it.
    pub fn lease(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }

    /// Gives up the lease, so that only the relay's copy keeps the VM alive; returns the VMM's process.
    pub fn release(self) -> Child {
        self.vmm
    }

    /// Gives the descriptor of signals back to the caller, who now waits for other things.
    pub fn take_interrupts(&mut self) -> Option<SignalFd> {
        self.interrupts.take()
    }

    /// Waits until the agent listens.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn agent_ready(&mut self) -> Result<Ready, MachineError> {
        let ready = self.wait_for_agent();
        if let Err(MachineError::Silent { .. } | MachineError::Failed { .. }) = &ready
            && let Some(template) = self.template.take()
        {
            // The next VM boots, and then shows the reason.
            template::discard(&template, Useless::NotReady);
        }
        ready
    }

    /// Whether its guest has begun as a template's, once the agent is ready.
    pub fn is_clone(&self) -> bool {
        self.template.is_some()
    }

    /// Waits until the guest has been saved as a template; its VMM then ends.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn saved(&mut self) -> Result<(), MachineError> {
        // Whoever makes a template has the least priority, and nobody waits for it.
        self.timeout = MAX_TIMEOUT;
        self.begin();
        self.wait(None, "the guest to be saved", |machine, _| machine.is_saved)
    }

    fn wait_for_agent(&mut self) -> Result<Ready, MachineError> {
        let stream = self.ready.try_clone()?;
        let mut buffer = FrameBuffer::new(frame::GUEST_LIMIT);
        self.begin();
        loop {
            self.ready(stream.as_fd(), PollFlags::POLLIN, "the guest's agent")?;
            let mut bytes = [0; 4096];
            let length = io::Read::read(&mut &stream, &mut bytes)?;
            if length == 0 {
                // The VMM closes it only when it ends; its reason is on the status socket.
                self.wait(None, "the guest's agent", |_, _| false)?;
            }
            buffer.extend(&bytes[..length]);
            let message = buffer.next::<Ready>().map_err(|e| MachineError::Agent(e.to_string()))?;
            if let Some(ready) = message {
                return check(ready);
            }
        }
    }

    /// A control connection to the VMM.
    ///
    /// # Errors
    /// connect(2)'s.
    pub fn control(&self) -> io::Result<Control> {
        match &self.directory {
            Some(directory) => Control::connect(directory.as_fd()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// A connection to the VM's file server.
    ///
    /// # Errors
    /// [`FilesError::Connect`].
    pub fn files(&self) -> Result<Files, FilesError> {
        match &self.directory {
            Some(directory) => Files::connect(directory.as_fd(), self.vmm.pidfd.as_fd()),
            None => Err(FilesError::Connect(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Why the VM has failed, if the VMM reports it within [`ENDS_WITHIN`]: a lost connection may be only a
    /// consequence.
    pub fn failure(&mut self) -> Option<MachineError> {
        let deadline = Deadline::within(ENDS_WITHIN);
        loop {
            let left = deadline.left();
            if left.is_zero() || !self.poll(None, left).ok()?.status {
                return None;
            }
            if let Err(failure) = self.read_status() {
                return Some(failure);
            }
        }
    }

    fn wait(
        &mut self,
        wanted: Option<(BorrowedFd<'_>, PollFlags)>,
        what: &'static str,
        done: impl Fn(&Self, bool) -> bool,
    ) -> Result<(), MachineError> {
        let mut is_ready = false;
        loop {
            if done(self, is_ready) {
                return Ok(());
            }
            let left = self.deadline.or(self.last).left();
            if left.is_zero()
                && !self.last.left().is_zero()
                && self.starvation.has_delayed(&self.vmm.pidfd, self.timeout)
            {
                self.deadline = Deadline::within(self.timeout);
                continue;
            }
            if left.is_zero() {
                return Err(MachineError::silent(
                    what,
                    self.deadline.or(self.last).length(),
                    self.stage,
                    self.directory.as_ref().map(AsFd::as_fd),
                ));
            }
            let found = self.poll(wanted, left.min(GLANCE))?;
            if found.signal
                && let Some(signal) = interruption(self.interrupts.as_ref())?
            {
                return Err(MachineError::Interrupted(signal));
            }
            is_ready = found.wanted;
            if found.status && !found.wanted {
                self.read_status()?;
                self.deadline = Deadline::within(self.timeout);
            } else if !found.wanted && self.console_has_grown() {
                self.deadline = Deadline::within(self.timeout);
            }
        }
    }

    fn poll(&self, wanted: Option<(BorrowedFd<'_>, PollFlags)>, timeout: Duration) -> io::Result<Found> {
        let input = PollFlags::POLLIN;
        let signals = self.interrupts.as_ref().map(AsFd::as_fd);
        let mut fds = vec![PollFd::new(self.status.as_fd(), input)];
        fds.extend(wanted.map(|(fd, flags)| PollFd::new(fd, flags)));
        fds.extend(signals.map(|fd| PollFd::new(fd, input)));
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) => return Ok(Found::default()),
            result => result?,
        };
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
        Ok(Found {
            status: ready.next().unwrap_or(false),
            wanted: wanted.is_some() && ready.next().unwrap_or(false),
            signal: signals.is_some() && ready.next().unwrap_or(false),
        })
    }

    fn read_status(&mut self) -> Result<(), MachineError> {
        let mut packet = vec![0; STATUS_LIMIT];
        let (length, _) = descriptors::receive(self.status.as_fd(), &mut packet)?;
        if length == 0 {
            return Err(self.failed(DIED_SILENTLY, String::new()));
        }
        match postcard::from_bytes(&packet[..length]) {
            Ok(Status::Reached(stage)) => {
                self.stage = self.stage.max(Some(stage));
                tracing::debug!(tsc = crate::sys::tsc::now(), "{}", stage.describe());
                Ok(())
            }
            Ok(Status::DeviceFailed { device, cause }) => {
                tracing::warn!("the VM's device {device} has failed: {cause}");
                Ok(())
            }
            Ok(Status::TemplateRefused { reason }) => {
                if let Some(template) = self.template.take() {
                    template::discard(&template, Useless::Refused(&printable(&reason)));
                }
                Ok(())
            }
            Ok(Status::Saved) => {
                self.is_saved = true;
                Ok(())
            }
            Ok(Status::Failed { reason, console, .. } | Status::Ended { reason, console }) => {
                Err(self.failed(&reason, console))
            }
            Err(_) => Err(self.failed(
                "the VMM speaks another protocol; runtime and VMM must be of one release",
                String::new(),
            )),
        }
    }

    fn failed(&self, reason: &str, console: String) -> MachineError {
        MachineError::Failed {
            reason: reason.to_owned(),
            kernel: self.kernel.clone(),
            stage: self.stage,
            console,
        }
    }

    fn console(&self) -> String {
        self.directory
            .as_ref()
            .map(|directory| Control::glance_at_console(directory.as_fd()))
            .unwrap_or_default()
    }

    fn console_has_grown(&mut self) -> bool {
        let length = self.console().len();
        std::mem::replace(&mut self.console_length, length) != length
    }
}

impl Wait for Machine {
    fn begin(&mut self) {
        self.deadline = Deadline::within(self.timeout);
        self.last = Deadline::within(MAX_TIMEOUT);
    }

    fn ready(
        &mut self,
        fd: BorrowedFd<'_>,
        flags: PollFlags,
        what: &'static str,
    ) -> Result<(), MachineError> {
        self.wait(Some((fd, flags)), what, |_, is_ready| is_ready)
    }
}

fn check(ready: Ready) -> Result<Ready, MachineError> {
    if ready.magic != MAGIC {
        return Err(MachineError::Agent("its greeting does not begin with the expected bytes".to_owned()));
    }
    if ready.oldest_version > VERSION || ready.version < OLDEST_VERSION {
        return Err(MachineError::Agent(format!(
            "it speaks versions {} to {} of the protocol, this stockade {OLDEST_VERSION} to {VERSION}; build \
             initramfs and runtime from one release",
            ready.oldest_version, ready.version
        )));
    }
    Ok(ready)
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
