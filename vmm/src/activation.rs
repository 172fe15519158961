//! Starting and stopping devices, which the vCPU threads leave to the main thread.
//!
//! A driver's write to a device's status register may start or end the device's thread. The vCPU that makes it waits
//! while the main thread carries it out, so that no thread which the guest reaches directly may start others.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Mutex, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Writes to status registers that wait for the main thread.
#[derive(Debug)]
pub struct Activations {
    event: EventFd,
    writes: Mutex<VecDeque<StatusWrite>>,
}

/// A write to a status register.
#[derive(Debug)]
pub struct StatusWrite {
    /// The device's slot.
    pub slot: usize,
    /// The value, as it was written.
    pub value: [u8; 4],
    /// The vCPU goes on when this is dropped.
    _done: SyncSender<()>,
}

impl Activations {
    /// Without any write.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { event: EventFd::new(EFD_NONBLOCK)?, writes: Mutex::new(VecDeque::new()) })
    }

    /// Readable while a write waits.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Hands a write over to the main thread, and returns when it is done.
    pub fn submit(&self, slot: usize, value: [u8; 4]) {
        let (done, wait) = sync_channel(0);
        let write = StatusWrite { slot, value, _done: done };
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).push_back(write);
        // There are at most as many writes as vCPUs: the counter cannot be full.
        let _ = self.event.write(1);
        // Nothing is ever sent: this ends when the write is dropped.
        let _ = wait.recv();
    }

    /// The writes that wait now, to be carried out in this order. Those that come meanwhile wait for the next call: a guest whose vCPUs
    /// take turns always has one that waits, and the main thread has more to do.
    pub fn take(&self) -> VecDeque<StatusWrite> {
        // Only the main thread reads the counter; an error means that no write waits.
        let _ = self.event.read();
        std::mem::take(&mut *self.writes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
