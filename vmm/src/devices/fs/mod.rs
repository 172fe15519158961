//! The file system device (virtio 1.3 §5.11): carries FUSE requests to the file server, which is a process of its own
//! ([`crate::file_server`]), and its replies back.
//!
//! | module | is |
//! |---|---|
//! | [`forward`] | the device's thread |
//! | [`turns`] | how many requests of each share the server has at a time |
//! | [`channel`] | shared memory and pipes between the processes |
//!
//! A reset never waits for the server, in which a request may hang: its replies to earlier requests are ignored, and
//! their slots are free again when it has replied.

pub mod channel;
pub(crate) mod forward;
mod turns;

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use stockade_protocol::agent::SHARE_TAG;
use virtio_bindings::{
    virtio_ids::VIRTIO_ID_FS,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use virtio_queue::Queue;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use self::{channel::DeviceEnd, forward::Forwarder};
use crate::{
    seccomp,
    virtio::device::{ActivateError, Activation, VirtioDevice, read_space},
};

const NAME: &str = "fs";

/// The high-priority queue (forget requests), and one for all other requests: large, so that a container with many requests
/// that wait leaves room for others.
const QUEUE_SIZES: [u16; 2] = [32, 1024];

/// Index of the high-priority queue.
const FORGET_QUEUE: usize = 0;

/// Number of request queues, which configuration space shows.
const REQUEST_QUEUES: u32 = QUEUE_SIZES.len() as u32 - 1;

/// Bytes of the tag in configuration space.
const TAG_SIZE: usize = 36;

/// Stack of its thread, in bytes.
const STACK: usize = 64 << 10;

/// A file system device.
#[derive(Debug)]
pub struct Fs {
    /// The channel, while the device is not active.
    channel: Option<DeviceEnd>,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    thread: JoinHandle<(DeviceEnd, Option<Vec<Queue>>)>,
    stop: EventFd,
}

impl Fs {
    /// A device for the server at the other end of the channel.
    pub fn new(channel: DeviceEnd) -> Self {
        Self { channel: Some(channel), active: None }
    }

    fn start(&mut self, activation: Activation) -> Result<Active, String> {
        let Activation { memory, queues, queue_events, interrupt, .. } = activation;
        let stop = EventFd::new(EFD_NONBLOCK).map_err(|error| format!("eventfd: {error}"))?;
        let mut channel = self.channel.take().ok_or("its thread has lost the file server")?;
        let epoll =
            forward::watch(&queue_events, &channel, &stop).map_err(|error| format!("epoll: {error}"))?;
        let run = move || {
            let interrupt = Arc::clone(&interrupt);
            let queues = match seccomp::restrict(seccomp::Thread::Fs) {
                Ok(()) => Forwarder::new(&memory, queues, queue_events, &interrupt, &mut channel).run(&epoll),
                Err(error) => {
                    interrupt.fail(&error);
                    None
                }
            };
            (channel, queues)
        };
        let thread = thread::Builder::new()
            .name(NAME.into())
            .stack_size(STACK)
            .spawn(run)
            .map_err(|error| format!("starting its thread: {error}"))?;
        Ok(Active { thread, stop })
    }
}

impl VirtioDevice for Fs {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; TAG_SIZE + 4];
        config[..SHARE_TAG.len()].copy_from_slice(SHARE_TAG.as_bytes());
        config[TAG_SIZE..].copy_from_slice(&REQUEST_QUEUES.to_le_bytes());
        read_space(&config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.reset();
        let active = self.start(activation).map_err(|reason| ActivateError { device: NAME, reason })?;
        self.active = Some(active);
        Ok(())
    }

    fn stop(&mut self) -> Option<Vec<Queue>> {
        let Active { thread, stop } = self.active.take()?;
        // The counter is written once.
        let _ = stop.write(1);
        // A thread that panicked has ended the process.
        let (mut channel, queues) = thread.join().ok()?;
        // This fails only if the server has ended, and the VMM will notice that soon.
        let _ = channel.reset();
        self.channel = Some(channel);
        queues
    }
}

impl Drop for Fs {
    fn drop(&mut self) {
        self.reset();
    }
}

#[cfg(test)]
#[path = "fs_test.rs"]
mod tests;
