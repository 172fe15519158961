//! The device's thread: waits for notifications of the driver and for sockets, and moves packets between them.
//!
//! Each round handles the events that there are, then a bounded number of the guest's packets, then gives a bounded
//! number of turns to connections that have data for the guest, then raises at most one interrupt. It waits only when
//! there is nothing to do; when the guest has no receive buffers, nothing is read from the sockets.

use std::{fmt::Display, io, os::fd::AsRawFd, sync::Arc};

use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::EventFd,
};

use super::{
    Endpoints,
    muxer::Muxer,
    queues::{Burst, QueueError, RxQueue, TxQueue},
};
use crate::virtio::interrupt::Interrupt;

/// Values by which epoll identifies everything that is not a connection; connections have 2^32 and more.
mod token {
    pub const RX: u64 = 0;
    pub const TX: u64 = 1;
    pub const STOP: u64 = 2;
    pub const LISTENER: u64 = 3;
}

/// Largest number of packets from the guest in one round.
const TX_BUDGET: usize = 32;

/// Largest number of turns for packets to the guest in one round.
const RX_BUDGET: usize = 32;

/// Number of events that are taken at a time.
const EVENTS: usize = 32;

/// Why the worker ended before it was told to stop.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The driver has broken the rules of a queue.
    #[error("the guest's driver broke the rules of the {queue} queue: {error}")]
    Queue {
        /// `rx` or `tx`.
        queue: &'static str,
        /// What was wrong.
        error: QueueError,
    },
    /// Waiting for events failed.
    #[error("waiting for events: {0}")]
    Epoll(#[from] io::Error),
}

impl WorkerError {
    fn rx(error: QueueError) -> Self {
        Self::Queue { queue: "rx", error }
    }

    fn tx(error: QueueError) -> Self {
        Self::Queue { queue: "tx", error }
    }
}

/// The events that the thread waits for besides connections.
pub struct Signals {
    /// The driver has provided receive buffers.
    pub rx: EventFd,
    /// The driver has sent packets.
    pub tx: EventFd,
    /// The device is reset.
    pub stop: EventFd,
}

impl Signals {
    /// An epoll instance that watches these events.
    ///
    /// # Errors
    /// Those of epoll_create1(2) and epoll_ctl(2).
    pub fn watch(&self) -> io::Result<Epoll> {
        let epoll = Epoll::new()?;
        for (signal, token) in [(&self.rx, token::RX), (&self.tx, token::TX), (&self.stop, token::STOP)] {
            epoll.ctl(ControlOperation::Add, signal.as_raw_fd(), EpollEvent::new(EventSet::IN, token))?;
        }
        Ok(epoll)
    }
}

/// The state of the thread.
pub struct Worker {
    memory: GuestMemoryMmap,
    interrupt: Arc<Interrupt>,
    signals: Signals,
    rx: RxQueue,
    tx: TxQueue,
    muxer: Muxer,
    stopping: bool,
    /// Whether there may be more packets in the tx queue.
    tx_pending: bool,
    /// Whether there is output, and there may be receive buffers for it.
    rx_pending: bool,
}

impl Worker {
    /// A worker whose `epoll` watches `signals`.
    pub fn new(
        memory: GuestMemoryMmap,
        interrupt: Arc<Interrupt>,
        signals: Signals,
        (rx, tx): (RxQueue, TxQueue),
        epoll: Epoll,
        (guest_cid, endpoints): (u64, Endpoints),
    ) -> Self {
        let mut muxer = Muxer::new(guest_cid, epoll, token::LISTENER, endpoints);
        muxer.renew();
        // Packets from before the first wait may be there without a notification.
        Self {
            memory,
            interrupt,
            signals,
            rx,
            tx,
            muxer,
            stopping: false,
            tx_pending: true,
            rx_pending: true,
        }
    }

    /// Works until it is told to stop, or until the driver breaks the rules: then the device has failed. All
    /// connections are closed at the end. If there was no connection, it returns the rx and the tx queue.
    pub fn run(mut self) -> (Endpoints, Option<[Queue; 2]>) {
        while !self.stopping {
            let timeout = if self.is_idle() { -1 } else { 0 };
            if let Err(error) = self.round(timeout) {
                self.interrupt.fail(&error);
                break;
            }
        }
        let is_quiet = self.stopping && self.is_idle() && self.muxer.is_empty();
        let queues = is_quiet.then(|| [self.rx.into_queue(), self.tx.into_queue()]);
        (self.muxer.into_endpoints(), queues)
    }

    /// Makes the device fail before it has worked, because the thread could not be restricted.
    pub fn refuse(self, cause: &dyn Display) -> (Endpoints, Option<[Queue; 2]>) {
        self.interrupt.fail(cause);
        (self.muxer.into_endpoints(), None)
    }

    /// True when there is nothing to do before the next event.
    pub fn is_idle(&self) -> bool {
        !self.tx_pending && !self.rx_pending
    }

    /// One round; it first waits for an event, at most `timeout` milliseconds, or without a limit if that is -1.
    /// Returns how many events there were.
    ///
    /// # Errors
    /// The device has failed.
    pub fn round(&mut self, timeout: i32) -> Result<usize, WorkerError> {
        let mut events = [EpollEvent::default(); EVENTS];
        let count = match self.muxer.epoll().wait(timeout, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            self.on_event(event.data(), event.event_set());
        }
        self.take_packets().map_err(WorkerError::tx)?;
        self.give_turns().map_err(WorkerError::rx)?;
        self.muxer.watch_listener()?;
        let rx = self.rx.needs_interrupt(&self.memory).map_err(WorkerError::rx)?;
        let tx = self.tx.needs_interrupt(&self.memory).map_err(WorkerError::tx)?;
        if rx || tx {
            self.interrupt.used();
        }
        Ok(count)
    }

    fn on_event(&mut self, token: u64, events: EventSet) {
        match token {
            // A read only clears the signal; a lost race with another reader would leave it clear too.
            token::RX => _ = self.signals.rx.read(),
            token::TX => {
                _ = self.signals.tx.read();
                self.tx_pending = true;
            }
            token::STOP => self.stopping = true,
            token::LISTENER => self.muxer.on_listener(),
            connection => self.muxer.on_event(connection, events),
        }
    }

    fn take_packets(&mut self) -> Result<(), QueueError> {
        if !self.tx_pending {
            return Ok(());
        }
        let mut data = Vec::new();
        for _ in 0..TX_BUDGET {
            let Some((head, header)) = self.tx.next(&self.memory, &mut data)? else {
                self.tx_pending = false;
                break;
            };
            self.muxer.handle(&header, &mut data);
            self.tx.complete(&self.memory, head)?;
        }
        Ok(())
    }

    fn give_turns(&mut self) -> Result<(), QueueError> {
        let mut burst = Burst::default();
        for _ in 0..RX_BUDGET {
            if !self.muxer.has_output() || !self.rx.has_buffer(&self.memory)? {
                self.rx_pending = false;
                return Ok(());
            }
            self.muxer.send_next(&self.memory, &mut self.rx, &mut burst)?;
        }
        self.rx_pending = true;
        Ok(())
    }
}
