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
    device::{ActivateError, Activation},
    interrupt::Interrupt,
};
use crate::seccomp;

/// The device fails: its driver has broken the rules, or the host has let it down.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The rings.
    #[error("the guest's driver broke the rules of its rings: {0}")]
    Rings(#[from] virtio_queue::Error),
    /// A chain.
    #[error("the guest's driver made {0}")]
    Chain(#[from] ChainError),
    /// What is in it.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// The host.
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
    /// Handles a chain of the queue of this index and returns how many bytes were written to it.
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

/// A device's running thread.
#[derive(Debug)]
pub struct Worker {
    thread: JoinHandle<()>,
    stop: EventFd,
}

impl Worker {
    /// Starts a thread with this seccomp filter and `stack` bytes that works on all queues of `activation`.
    ///
    /// # Errors
    /// The host has no descriptors or threads left.
    pub fn spawn(
        name: &'static str,
        filter: seccomp::Thread,
        stack: usize,
        activation: Activation,
        handler: impl Handler,
    ) -> Result<Self, ActivateError> {
        Self::start(name, filter, stack, activation, handler)
            .map_err(|e| ActivateError { device: name, reason: e.to_string() })
    }

    fn start(
        name: &'static str,
        filter: seccomp::Thread,
        stack: usize,
        activation: Activation,
        handler: impl Handler,
    ) -> io::Result<Self> {
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let work = Work::new(activation, handler, &stop)?;
        let run = move || match seccomp::restrict(filter) {
            Ok(()) => work.run(),
            Err(error) => work.interrupt.fail(&error),
        };
        let thread = thread::Builder::new().name(name.into()).stack_size(stack).spawn(run)?;
        Ok(Self { thread, stop })
    }

    /// Ends the thread; it finishes the chain at hand.
    pub fn stop(self) {
        // The counter is written once. A thread that panicked has ended too.
        let _ = self.stop.write(1);
        let _ = self.thread.join();
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

    /// Until stopped; a device that has failed waits for that.
    fn run(mut self) {
        let mut events = [EpollEvent::empty(); 4];
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(errno) => return self.interrupt.fail(&format_args!("epoll: {errno}")),
            };
            for event in &events[..ready] {
                let index = event.data() as usize;
                let Some(queue_event) = self.queue_events.get(index) else { return };
                // Only this thread reads it; where it has nothing, the queue has nothing.
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
