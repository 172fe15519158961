//! The threads of the vCPUs: the first starts with the machine, the others when the guest is to have them.
//!
//! A vCPU costs the host some memory and time, so there is none before somebody wants it. It then waits in KVM until the
//! guest's kernel sends it INIT and SIPI, and stays there when the kernel lets go of it. What ends the process ends all of
//! them.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread::{self, JoinHandle},
};

use stockade_protocol::vmm::CpuPosition;

use super::{End, Position, Vcpu};
use crate::{
    bus::Bus,
    control::Ending,
    machine::{self, Machine},
    seccomp::{self, Thread},
};

/// Stack of a vCPU thread, in bytes: exits are handled a few calls deep.
const STACK: usize = 128 << 10;

/// There are not as many vCPUs as wanted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum Error {
    #[error("{asked} CPUs are more than the {most} that this VM was made for")]
    TooMany { asked: u8, most: u8 },
    #[error(transparent)]
    Machine(#[from] machine::Error),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// The running vCPUs.
pub struct Threads {
    most: u8,
    bus: Arc<Bus>,
    ending: Arc<Ending>,
    running: Mutex<u8>,
    position: Arc<Position>,
    boot: OnceLock<JoinHandle<()>>,
}

impl Threads {
    /// None of up to `most`.
    pub fn new(most: u8, bus: Arc<Bus>, ending: Arc<Ending>) -> Self {
        Self { most, bus, ending, running: Mutex::new(0), position: Arc::default(), boot: OnceLock::new() }
    }

    /// Starts the first.
    ///
    /// # Errors
    /// The host has no threads left.
    pub fn start(&self, boot: Vcpu) -> io::Result<()> {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = 1;
        Position::prepare()?;
        let thread = self.run(boot, 0)?;
        // It is the only one.
        let _ = self.boot.set(thread);
        Ok(())
    }

    /// Adds vCPUs until there are `count`.
    ///
    /// # Errors
    /// [`Error`]; those before it run.
    pub fn add(&self, machine: &Machine, count: u8) -> Result<(), Error> {
        if count > self.most {
            return Err(Error::TooMany { asked: count, most: self.most });
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while *running < count {
            self.run(machine.cpu(*running, self.most)?, *running)?;
            *running += 1;
        }
        Ok(())
    }

    /// Where the first is.
    pub fn position(&self) -> Option<CpuPosition> {
        self.position.ask(self.boot.get()?)
    }

    fn run(&self, vcpu: Vcpu, id: u8) -> io::Result<JoinHandle<()>> {
        let (bus, ending, position) =
            (Arc::clone(&self.bus), Arc::clone(&self.ending), Arc::clone(&self.position));
        let run = move || {
            ending.set(match seccomp::restrict(Thread::Vcpu) {
                Ok(()) => vcpu.run(&bus, &position),
                Err(e) => End::Failed(e.to_string()),
            });
        };
        thread::Builder::new().name(format!("vcpu{id}")).stack_size(STACK).spawn(run)
    }
}
