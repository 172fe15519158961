//! The thread of a device that answers descriptor chains one after the other.
//!
//! ```text
//!  notification ─▶ take available chains ─▶ device handles each ─▶ used ring ─▶ interrupt, if the driver wants one
//! ```

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::Arc,
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    buffers::ChainError,
    device::{ActivateError, Activation, VirtioDevice},
    interrupt::Interrupt,
};
use crate::seccomp;

/// Stack of a device's thread, in bytes.
const STACK: usize = 64 << 10;

/// Why the device fails: its driver has broken the rules, or a system call of the host failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The rings are not valid.
    #[error("the guest's driver broke the rules of its rings: {0}")]
    Rings(#[from] virtio_queue::Error),
    /// A chain is not valid.
    #[error("the guest's driver made {0}")]
    Chain(#[from] ChainError),
    /// The content of a chain is not valid.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// A system call failed.
    #[error("{what}: {source}")]
    Host {
        /// The system call.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// What a device does with one chain.
pub trait Handler: Send + 'static {
    /// Handles a chain of the queue of this index and returns the number of bytes that were written to it.
    ///
    /// # Errors
    /// The chain cannot be understood.
    fn handle(
        &mut self,
        queue: usize,
        memory: &GuestMemoryMmap,
        chain: DescriptorChain<&GuestMemoryMmap>,
    ) -> Result<u32, Failure>;
}

/// A device whose queues are all the work of one thread.
pub trait ChainDevice: Send {
    /// Its name, which its thread has too.
    const NAME: &'static str;
    /// Device ID (virtio 1.3 §5).
    const DEVICE_TYPE: u32;
    /// As [`VirtioDevice::queue_max_sizes`].
    const QUEUE_SIZES: &'static [u16];
    /// The filter of its thread.
    const FILTER: seccomp::Thread;

    /// As [`VirtioDevice::features`].
    fn features(&self) -> u64;

    /// As [`VirtioDevice::read_config`].
    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    /// The handler of its chains.
    fn handler(&self) -> impl Handler;

    /// Called when its thread works.
    fn started(&self, _interrupt: Arc<Interrupt>) {}

    /// Called when its thread is about to end.
    fn stopping(&self) {}
}

/// A [`ChainDevice`] with its thread.
#[derive(Debug, Default)]
pub struct WorkerDevice<D: ChainDevice> {
    device: D,
    worker: Option<Worker>,
}

impl<D: ChainDevice> WorkerDevice<D> {
    /// A device without a driver.
    pub(crate) fn over(device: D) -> Self {
        Self { device, worker: None }
    }

    /// The parts that only this kind of device has.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn device(&self) -> &D {
        &self.device
    }
}

impl<D: ChainDevice> VirtioDevice for WorkerDevice<D> {
    fn device_type(&self) -> u32 {
        D::DEVICE_TYPE
    }

    fn queue_max_sizes(&self) -> &[u16] {
        D::QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        self.device.features()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.device.read_config(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let interrupt = Arc::clone(&activation.interrupt);
        self.worker = Some(Worker::spawn(D::NAME, D::FILTER, activation, self.device.handler())?);
        self.device.started(interrupt);
        Ok(())
    }

    fn stop(&mut self) -> Option<Vec<Queue>> {
        self.device.stopping();
        self.worker.take()?.stop()
    }
}

impl<D: ChainDevice> Drop for WorkerDevice<D> {
    fn drop(&mut self) {
        self.reset();
    }
}

/// A device's running thread.
#[derive(Debug)]
struct Worker {
    thread: JoinHandle<Vec<Queue>>,
    stop: EventFd,
}

impl Worker {
    /// Starts a thread with this seccomp filter that works on all queues of `activation`.
    ///
    /// # Errors
    /// The host has no descriptors or threads left.
    fn spawn(
        name: &'static str,
        filter: seccomp::Thread,
        activation: Activation,
        handler: impl Handler,
    ) -> Result<Self, ActivateError> {
        Self::start(name, filter, activation, handler)
            .map_err(|e| ActivateError { device: name, reason: e.to_string() })
    }

    fn start(
        name: &'static str,
        filter: seccomp::Thread,
        activation: Activation,
        handler: impl Handler,
    ) -> io::Result<Self> {
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let work = Work::new(activation, handler, &stop)?;
        let run = move || match seccomp::restrict(filter) {
            Ok(()) => work.run(),
            Err(error) => {
                work.interrupt.fail(&error);
                work.queues
            }
        };
        let thread = thread::Builder::new().name(name.into()).stack_size(STACK).spawn(run)?;
        Ok(Self { thread, stop })
    }

    /// Ends the thread, which finishes the chain at hand; returns its queues, unless it has panicked.
    fn stop(self) -> Option<Vec<Queue>> {
        // The counter is written once.
        let _ = self.stop.write(1);
        self.thread.join().ok()
    }
}

/// What the thread does.
pub(crate) struct Work<H> {
    epoll: Epoll,
    memory: GuestMemoryMmap,
    queues: Vec<Queue>,
    queue_events: Vec<EventFd>,
    interrupt: Arc<Interrupt>,
    handler: H,
}

impl<H: Handler> Work<H> {
    /// Watches the queues of `activation`, and `stop`.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(crate) fn new(activation: Activation, handler: H, stop: &EventFd) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (event, token) in activation.queue_events.iter().chain([stop]).zip(0..) {
            // SAFETY: the descriptor is open for the duration of the call.
            let event = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
            epoll.add(event, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        }
        let Activation { memory, queues, queue_events, interrupt, .. } = activation;
        Ok(Self { epoll, memory, queues, queue_events, interrupt, handler })
    }

    /// Until stopped; a device that has failed waits for that. Returns the queues.
    fn run(mut self) -> Vec<Queue> {
        let mut events = [EpollEvent::empty(); 4];
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(errno) => {
                    self.interrupt.fail(&format_args!("epoll: {errno}"));
                    return self.queues;
                }
            };
            for event in &events[..ready] {
                let index = event.data() as usize;
                let Some(queue_event) = self.queue_events.get(index) else { return self.queues };
                // Only this thread reads the event; an error means that the queue was not notified.
                let _ = queue_event.read();
                if !self.interrupt.has_failed()
                    && let Err(failure) = self.work(index)
                {
                    self.interrupt.fail(&failure);
                }
            }
        }
    }

    /// Works on at most one ring's worth of chains, then lets the other queues and a stop have their turn.
    ///
    /// # Errors
    /// The device fails.
    pub(crate) fn work(&mut self, index: usize) -> Result<(), Failure> {
        let memory = &self.memory;
        let Some(queue) = self.queues.get_mut(index).filter(|queue| queue.ready()) else { return Ok(()) };
        let mut left = queue.size();
        loop {
            queue.disable_notification(memory)?;
            while let Some(chain) = queue.iter(memory)?.next() {
                let head = chain.head_index();
                let written = self.handler.handle(index, memory, chain)?;
                queue.add_used(memory, head, written)?;
                if queue.needs_notification(memory)? {
                    self.interrupt.used();
                }
                left -= 1;
                if left == 0 {
                    // The counter is at most 1 here.
                    let _ = self.queue_events[index].write(1);
                    return Ok(());
                }
            }
            if !queue.enable_notification(memory)? {
                return Ok(());
            }
        }
    }
}
