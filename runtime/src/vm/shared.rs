//! The VM of a sandbox, in which a member is created: it runs already, and belongs to the sandbox.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::signalfd::SignalFd;
use stockade_protocol::vmm::Stage;

use super::files::{Files, FilesError};
use super::patience::Patience;
use super::wait::{self, Wait};
use super::{Control, Machine, MachineError, is_of_0_1};
use crate::sys::process::{Child, Pidfd};

/// How long a command may wait in all for a guest that runs, unless the host is busy ([`Patience`]).
const TIMEOUT: Duration = Duration::from_secs(8);

/// The VM that a container is created in.
#[derive(Debug)]
pub enum Vm {
    /// The container's own VM, which boots meanwhile.
    Own(Machine),
    /// The VM of its sandbox.
    Shared(Shared),
}

/// A VM that another container has started.
#[derive(Debug)]
pub struct Shared {
    /// The VMM's process.
    vmm: Pidfd,
    /// The directory with the VMM's sockets.
    directory: OwnedFd,
    interrupts: Option<SignalFd>,
    patience: Patience,
}

impl Shared {
    /// The VM of this VMM, whose sockets are in `directory`; every wait ends when one of the signals comes.
    ///
    /// # Errors
    /// When no descriptors are left.
    pub fn new(vmm: Pidfd, directory: BorrowedFd<'_>, interrupts: SignalFd) -> io::Result<Self> {
        let directory = directory.try_clone_to_owned()?;
        let patience = Patience::new(TIMEOUT, TIMEOUT);
        Ok(Self { vmm, directory, interrupts: Some(interrupts), patience })
    }

    /// Sets how long to wait for the VM.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { patience: Patience::new(timeout, timeout), ..self }
    }

    /// Gives the descriptor of signals back to the caller, who now waits for other things.
    pub fn take_interrupts(&mut self) -> Option<SignalFd> {
        self.interrupts.take()
    }
}

impl Wait for Shared {
    fn begin(&mut self) {}

    fn ready(
        &mut self,
        fd: BorrowedFd<'_>,
        flags: PollFlags,
        what: &'static str,
    ) -> Result<(), MachineError> {
        loop {
            let began = Instant::now();
            let ends = (&self.vmm, MachineError::SandboxEnded);
            let until = self.patience.stretch();
            let is_ready = wait::wait_for((fd, flags), until, Some(ends), self.interrupts.as_ref());
            // Only the waits count, and not what the command does in between.
            self.patience.spend(began.elapsed());
            if is_ready? {
                return Ok(());
            }
            if !self.patience.goes_on(Some(&self.vmm)) {
                let (waited, stage) = (self.patience.timeout(), Some(Stage::AgentConnected));
                return Err(MachineError::silent(what, waited, stage, Some(self.directory.as_fd())));
            }
        }
    }
}

impl Vm {
    /// The lease: the VM lives while somebody holds it. `None` if another container holds it.
    pub fn lease(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Own(machine) => Some(machine.lease()),
            Self::Shared(_) => None,
        }
    }

    /// A control connection to the VMM.
    ///
    /// # Errors
    /// connect(2)'s.
    pub fn control(&self) -> io::Result<Control> {
        match self {
            Self::Own(machine) => machine.control(),
            Self::Shared(shared) => Control::connect(shared.directory.as_fd()),
        }
    }

    /// A connection to the VM's file server.
    ///
    /// # Errors
    /// [`FilesError::Connect`].
    pub fn files(&self) -> Result<Files, FilesError> {
        match self {
            Self::Own(machine) => machine.files(),
            Self::Shared(shared) => Files::connect(shared.directory.as_fd(), shared.vmm.as_fd()),
        }
    }

    /// Whether a process of its own serves files; in a VM of 0.1, the VMM does.
    pub fn has_file_server(&self) -> bool {
        match self {
            Self::Own(_) => true,
            Self::Shared(shared) => !is_of_0_1(shared.directory.as_fd()),
        }
    }

    /// Explains a failure of the file server: the VM may have ended.
    pub fn explain(&mut self, error: FilesError) -> anyhow::Error {
        match (self, error) {
            (
                Self::Own(machine),
                error @ (FilesError::Connect(_) | FilesError::Closed | FilesError::Frame(_)),
            ) => machine.failure().map_or_else(|| error.into(), Into::into),
            (_, error) => error.into(),
        }
    }

    /// Gives the descriptor of signals back to the caller, who now waits for other things.
    pub fn take_interrupts(&mut self) -> Option<SignalFd> {
        match self {
            Self::Own(machine) => machine.take_interrupts(),
            Self::Shared(shared) => shared.take_interrupts(),
        }
    }

    /// Gives up the VM; returns its process if the VM is this container's own.
    pub fn release(self) -> Option<Child> {
        match self {
            Self::Own(machine) => Some(machine.release()),
            Self::Shared(_) => None,
        }
    }
}

impl Wait for Vm {
    fn begin(&mut self) {
        match self {
            Self::Own(machine) => machine.begin(),
            Self::Shared(shared) => shared.begin(),
        }
    }

    fn ready(
        &mut self,
        fd: BorrowedFd<'_>,
        flags: PollFlags,
        what: &'static str,
    ) -> Result<(), MachineError> {
        match self {
            Self::Own(machine) => machine.ready(fd, flags, what),
            Self::Shared(shared) => shared.ready(fd, flags, what),
        }
    }
}

#[cfg(test)]
#[path = "shared_test.rs"]
mod tests;
