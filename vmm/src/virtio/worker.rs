//! Devices that answer descriptor chains one after the other, on a thread of their own or one that they share.
//!
//! ```text
//!  notification ─▶ take available chains ─▶ device handles each ─▶ used ring ─▶ interrupt, if the driver wants one
//! ```

use std::{fmt::Display, io, sync::Arc};

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::{
    buffers::ChainError,
    device::{ActivateError, Activation, VirtioDevice},
    interrupt::Interrupt,
    shared_thread::{Job, Place, SharedThread},
};
use crate::seccomp;

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
    /// Its name, which a thread of its own has too.
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
#[derive(Debug)]
pub struct WorkerDevice<D: ChainDevice> {
    device: D,
    thread: SharedThread,
    /// While it is active.
    place: Option<Place>,
}

impl<D: ChainDevice> WorkerDevice<D> {
    /// A device without a driver, with a thread of its own.
    pub(crate) fn over(device: D) -> Self {
        Self { device, thread: SharedThread::new(D::NAME, D::FILTER), place: None }
    }

    /// The same on a thread that other devices use, too, whose filter allows what this one does.
    #[must_use]
    pub fn on(mut self, thread: &SharedThread) -> Self {
        self.thread = thread.clone();
        self
    }

    /// The parts that only this kind of device has.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn device(&self) -> &D {
        &self.device
    }
}

impl<D: ChainDevice + Default> Default for WorkerDevice<D> {
    fn default() -> Self {
        Self::over(D::default())
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
        let place = self
            .thread
            .add(Box::new(Work::new(activation, self.device.handler())))
            .map_err(|error| ActivateError { device: D::NAME, reason: error.to_string() })?;
        self.place = Some(place);
        self.device.started(interrupt);
        Ok(())
    }

    fn stop(&mut self) -> Option<Vec<Queue>> {
        self.device.stopping();
        self.thread.remove(self.place.take()?)
    }
}

impl<D: ChainDevice> Drop for WorkerDevice<D> {
    fn drop(&mut self) {
        self.reset();
    }
}

/// The queues of an active device.
pub(crate) struct Work<H> {
    memory: GuestMemoryMmap,
    queues: Vec<Queue>,
    queue_events: Vec<EventFd>,
    interrupt: Arc<Interrupt>,
    handler: H,
}

impl<H: Handler> Job for Work<H> {
    fn events(&self) -> &[EventFd] {
        &self.queue_events
    }

    fn notified(&mut self, index: usize) {
        let Some(queue_event) = self.queue_events.get(index) else { return };
        // Only this thread reads the event; an error means that the queue was not notified.
        let _ = queue_event.read();
        if !self.interrupt.has_failed()
            && let Err(failure) = self.work(index)
        {
            self.interrupt.fail(&failure);
        }
    }

    fn fail(&mut self, cause: &dyn Display) {
        self.interrupt.fail(cause);
    }

    fn into_queues(self: Box<Self>) -> Vec<Queue> {
        self.queues
    }
}

impl<H: Handler> Work<H> {
    /// All queues of `activation`.
    pub(crate) fn new(activation: Activation, handler: H) -> Self {
        let Activation { memory, queues, queue_events, interrupt, .. } = activation;
        Self { memory, queues, queue_events, interrupt, handler }
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
