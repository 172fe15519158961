//! The threads of the vCPUs: the first starts with the machine, the others when the guest is to have them.
//!
//! A vCPU costs the host some memory and time, so it is made only when it is needed. It then waits in KVM until the guest's
//! kernel sends it INIT and SIPI, and stays there when the kernel takes it offline. The end of the process ends all of them.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
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

/// How often vCPUs are told to stop, and at what interval: a signal that comes just before KVM_RUN has no effect.
const PAUSE_ATTEMPTS: usize = 500;
const PAUSE_STEP: Duration = Duration::from_millis(20);

/// Why vCPUs cannot be added.
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
    running: Mutex<Vec<Running>>,
    position: Arc<Position>,
}

/// The thread of a vCPU, which returns the vCPU if that has stopped.
type Running = JoinHandle<Option<Vcpu>>;

impl Threads {
    /// Without vCPUs yet; there may be up to `most`.
    pub fn new(most: u8, bus: Arc<Bus>, ending: Arc<Ending>) -> Self {
        Self { most, bus, ending, running: Mutex::default(), position: Arc::default() }
    }

    /// Starts the first vCPU, and the others that a template had.
    ///
    /// # Errors
    /// The host has no threads left.
    pub fn start(&self, vcpus: Vec<Vcpu>) -> io::Result<()> {
        Position::prepare()?;
        let mut running = self.running();
        for vcpu in vcpus {
            let id = running.len();
            running.push(self.run(vcpu, id)?);
        }
        Ok(())
    }

    /// Adds vCPUs until there are `count`.
    ///
    /// # Errors
    /// [`Error`]; the vCPUs that were added before it run.
    pub fn add(&self, machine: &Machine, count: u8) -> Result<(), Error> {
        if count > self.most {
            return Err(Error::TooMany { asked: count, most: self.most });
        }
        let mut running = self.running();
        while running.len() < count.into() {
            // Below `count`.
            let id = running.len();
            running.push(self.run(machine.cpu(id as u8, self.most)?, id)?);
        }
        Ok(())
    }

    /// What the first vCPU executes.
    pub fn position(&self) -> Option<CpuPosition> {
        self.position.ask(self.running().first()?)
    }

    /// Stops all vCPUs and returns them; `None` if one has ended, or does not stop. `serve` is called repeatedly,
    /// because a vCPU may wait for the calling thread.
    pub fn pause(&self, serve: impl Fn()) -> Option<Vec<Vcpu>> {
        let mut running = self.running();
        for _ in 0..PAUSE_ATTEMPTS {
            if running.iter().all(JoinHandle::is_finished) {
                return running.drain(..).map(|thread| thread.join().ok()?).collect();
            }
            running
                .iter()
                .filter(|thread| !thread.is_finished())
                .for_each(|thread| self.position.pause(thread));
            thread::sleep(PAUSE_STEP);
            serve();
        }
        None
    }

    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut vcpu: Vcpu, id: usize) -> io::Result<Running> {
        let (bus, ending, position) =
            (Arc::clone(&self.bus), Arc::clone(&self.ending), Arc::clone(&self.position));
        let run = move || {
            let ended = match seccomp::restrict(Thread::Vcpu) {
                Ok(()) => vcpu.run(&bus, &position),
                Err(e) => Some(End::Failed(e.to_string())),
            };
            match ended {
                Some(end) => {
                    ending.set(end);
                    None
                }
                None => Some(vcpu),
            }
        };
        thread::Builder::new().name(format!("vcpu{id}")).stack_size(STACK).spawn(run)
    }
}
