//! virtio-vsock (virtio 1.3 §5.10): the only way between the host and the agent.
//!
//! ```text
//!   runtime, relays                 this device                         guest
//!   ───────────────                 ───────────                         ─────
//!   connect(listener) ────▶ Connection: 2:1024+ ── REQUEST ──▶ cid:AGENT_PORT   agent listens
//!   ready socket      ◀──── Connection: 2:READY_PORT ◀── REQUEST ── cid:any     once, from the agent
//!   renewal socket    ────▶ Connection: 2:1024+ ── REQUEST ──▶ cid:renewal::PORT   once, where the guest is a template's
//!                                                     RST ──▶                   anything else
//! ```
//!
//! The guest can reach no socket of the host except the one for its "ready" connection. Until that connection is made,
//! connections to the listener wait in its backlog, because the agent does not listen yet.
//!
//! | module | is |
//! |---|---|
//! | [`worker`] | the thread: notifications, sockets, rounds |
//! | [`queues`] | packets in and out of descriptor chains |
//! | [`muxer`] | which packet belongs to which connection, whose turn it is |
//! | [`connection`] | one connection's state machine |
//! | [`credit`] | its flow control |
//! | [`packet`] | the header |
//! | [`socket`] | guest memory to and from sockets |
//!
//! Data is not copied on its way: a socket is read straight into the guest's receive buffers and written straight from
//! its send buffers. Only bytes that a socket does not take at once are kept, up to the guest's credit.

mod connection;
mod credit;
mod muxer;
pub(crate) mod packet;
mod queues;
mod socket;
mod worker;

use std::{
    io,
    os::unix::net::{UnixListener, UnixStream},
    thread::{self, JoinHandle},
};

use virtio_bindings::{virtio_ids::VIRTIO_ID_VSOCK, virtio_ring::VIRTIO_RING_F_EVENT_IDX};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use self::{
    queues::{RxQueue, TxQueue},
    worker::{Signals, Worker},
};
use crate::{
    seccomp,
    virtio::device::{ActivateError, Activation, VirtioDevice, read_space},
};

/// The device's name in errors.
const DEVICE: &str = "vsock";

/// VIRTIO_VSOCK_F_STREAM (virtio 1.3 §5.10.3).
const F_STREAM: u64 = 1 << 0;

/// Sizes of the rx, tx and event queues. A Linux guest fills the rx queue with pages and the event queue with 8
/// buffers.
const QUEUE_SIZES: [u16; 3] = [128, 128, 8];

/// Stack of the worker, in bytes; a round needs a few KiB.
const STACK_SIZE: usize = 128 << 10;

/// The host's sockets that the device serves.
pub(crate) struct Endpoints {
    /// The listener, each of whose connections becomes one to the agent.
    listener: UnixListener,
    /// The socket for the guest's first connection to the ready port, which takes it.
    ready: Option<Ready>,
    /// The socket with the message that tells a template's guest that it is a clone.
    renewal: Option<UnixStream>,
}

/// The destination of the guest's only connection.
pub(crate) struct Ready {
    socket: UnixStream,
    on_connect: Box<dyn FnOnce() + Send>,
}

/// The device.
pub struct Vsock {
    cid: u64,
    /// The sockets, while the device is not active.
    endpoints: Option<Endpoints>,
    active: Option<Active>,
}

struct Active {
    worker: JoinHandle<(Endpoints, Option<[Queue; 2]>)>,
    /// The event queue, which is never used: a template is saved while there is no connection, so there is none whose
    /// end its clones would have to be told.
    events: Queue,
    stop: EventFd,
}

impl Vsock {
    /// A device for a guest of context ID `cid`, at least 3.
    ///
    /// Connections to `agent_listener` go to the agent's port. The guest's only connection goes to `ready`; `on_ready`
    /// is called, on the device's thread, when it is made. `renewal` is what the agent of a template's guest waits for.
    ///
    /// # Errors
    /// `cid` is reserved (`InvalidInput`), or the listener cannot be made non-blocking.
    pub fn new(
        cid: u64,
        agent_listener: UnixListener,
        ready: UnixStream,
        on_ready: Box<dyn FnOnce() + Send>,
        renewal: Option<UnixStream>,
    ) -> io::Result<Self> {
        // §5.10.4: 0, 1 and 2 are reserved, 2^32 - 1 too, and the upper half is zero.
        if !(3..u64::from(u32::MAX)).contains(&cid) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{cid} is not a guest's context ID: use a number from 3 to {}", u32::MAX - 1),
            ));
        }
        agent_listener.set_nonblocking(true)?;
        let ready = Some(Ready { socket: ready, on_connect: on_ready });
        Ok(Self {
            cid,
            endpoints: Some(Endpoints { listener: agent_listener, ready, renewal }),
            active: None,
        })
    }

    fn start(&mut self, activation: Activation) -> Result<Active, String> {
        let Activation { memory, features, mut queues, queue_events, interrupt } = activation;
        let event_idx = features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        for queue in &mut queues {
            queue.set_event_idx(event_idx);
        }
        let (Ok([rx, tx, events]), Ok([rx_event, tx_event, _])) =
            (<[Queue; 3]>::try_from(queues), <[EventFd; 3]>::try_from(queue_events))
        else {
            return Err("it takes three queues".into());
        };
        if !rx.ready() || !tx.ready() {
            return Err("the driver has left the rx or the tx queue unset".into());
        }
        let stop = EventFd::new(EFD_NONBLOCK).map_err(|error| format!("eventfd: {error}"))?;
        let signals = Signals {
            rx: rx_event,
            tx: tx_event,
            stop: stop.try_clone().map_err(|error| format!("eventfd: {error}"))?,
        };
        let epoll = signals.watch().map_err(|error| format!("epoll: {error}"))?;
        let Some(endpoints) = self.endpoints.take() else {
            return Err("its worker has lost the host's sockets; restart the VM".into());
        };
        let queues = (RxQueue::new(rx), TxQueue::new(tx));
        let worker = Worker::new(memory, interrupt, signals, queues, epoll, (self.cid, endpoints));
        let worker = thread::Builder::new()
            .name(DEVICE.into())
            .stack_size(STACK_SIZE)
            .spawn(move || match seccomp::restrict(seccomp::Thread::Vsock) {
                Ok(()) => worker.run(),
                Err(error) => worker.refuse(&error),
            })
            .map_err(|error| format!("starting its thread: {error}"))?;
        Ok(Active { worker, events, stop })
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        F_STREAM | 1 << VIRTIO_RING_F_EVENT_IDX
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_space(&self.cid.to_le_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.reset();
        let active = self.start(activation).map_err(|reason| ActivateError { device: DEVICE, reason })?;
        self.active = Some(active);
        Ok(())
    }

    fn stop(&mut self) -> Option<Vec<Queue>> {
        let Active { worker, events, stop } = self.active.take()?;
        // The counter is 0 or 1: a write cannot fail.
        let _ = stop.write(1);
        let (endpoints, queues) = worker.join().ok()?;
        self.endpoints = Some(endpoints);
        let [rx, tx] = queues?;
        Some(vec![rx, tx, events])
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        self.reset();
    }
}

#[cfg(any(test, feature = "fuzz"))]
#[cfg_attr(not(test), allow(dead_code, reason = "fuzz targets need a part of it"))]
pub(crate) mod fixture;
#[cfg(test)]
mod hostile_test;
#[cfg(test)]
mod stream_test;
#[cfg(test)]
mod vsock_test;
