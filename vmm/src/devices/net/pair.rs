//! The thread of a pair of queues: waits for the driver's notifications and for its tap, and moves packets.
//!
//! Each round handles the events that there are, then a bounded number of packets in either direction, then raises at most
//! one interrupt. It waits only when there is nothing to do; the tap is not read while the guest has no buffers. A tap
//! is watched edge-triggered: a tap without a reader, or one that has gone, then reports that only once.

use std::{io, os::fd::AsRawFd, sync::Arc};

use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::EventFd,
};

use super::{
    Link, bit, control,
    ring::{Ring, RingError},
    rx::{Received, RxQueue},
    tap::Tap,
    tx::{Sent, TxQueue},
};
use crate::virtio::interrupt::Interrupt;

/// The values by which epoll identifies events.
mod token {
    pub const RX: u64 = 0;
    pub const TX: u64 = 1;
    pub const CONTROL: u64 = 2;
    pub const STOP: u64 = 3;
    pub const TAP: u64 = 4;
}

/// Largest number of packets in one round, in either direction.
const BUDGET: usize = 64;

/// Why the thread ended before it was told to stop.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The driver has broken the rules of a queue.
    #[error("the guest's driver broke the rules of the {queue} queue: {error}")]
    Ring {
        /// `rx`, `tx` or `control`.
        queue: &'static str,
        /// What was wrong.
        error: RingError,
    },
    /// Waiting for events failed.
    #[error("waiting for events: {0}")]
    Epoll(#[from] io::Error),
}

fn broken(queue: &'static str) -> impl Fn(RingError) -> PairError {
    move |error| PairError::Ring { queue, error }
}

/// The events that the thread waits for besides its tap.
pub struct Signals {
    /// The driver has provided receive buffers.
    pub rx: EventFd,
    /// The driver has sent packets.
    pub tx: EventFd,
    /// The driver has sent a command.
    pub control: Option<EventFd>,
    /// The device is reset.
    pub stop: EventFd,
}

impl Signals {
    /// An epoll instance that watches these events and the tap.
    ///
    /// # Errors
    /// Those of epoll_create1(2) and epoll_ctl(2).
    pub fn watch(&self, tap: &Tap) -> io::Result<Epoll> {
        let epoll = Epoll::new()?;
        let signals = [
            (Some(&self.rx), token::RX),
            (Some(&self.tx), token::TX),
            (self.control.as_ref(), token::CONTROL),
            (Some(&self.stop), token::STOP),
        ];
        for (signal, token) in signals {
            if let Some(signal) = signal {
                epoll.ctl(ControlOperation::Add, signal.as_raw_fd(), EpollEvent::new(EventSet::IN, token))?;
            }
        }
        let edges = EventSet::IN | EventSet::EDGE_TRIGGERED;
        let tap = std::os::fd::AsFd::as_fd(tap).as_raw_fd();
        epoll.ctl(ControlOperation::Add, tap, EpollEvent::new(edges, token::TAP))?;
        Ok(epoll)
    }
}

/// The queues of one pair; the first has the control queue too.
pub struct Queues {
    /// The receive queue: packets to the guest.
    pub rx: Queue,
    /// The transmit queue: packets from the guest.
    pub tx: Queue,
    /// The control queue: commands of the driver.
    pub control: Option<Queue>,
}

/// The state of the thread.
pub struct Pair<'m> {
    memory: &'m GuestMemoryMmap,
    rx: RxQueue<'m>,
    tx: TxQueue<'m>,
    control: Option<Ring<'m>>,
    signals: Signals,
    epoll: Epoll,
    taps: Arc<[Tap]>,
    index: usize,
    link: Link,
    interrupt: &'m Interrupt,
    stopping: bool,
    /// Whether there may be packets in the tap.
    tap_ready: bool,
    /// Whether there may be receive buffers.
    rx_ready: bool,
    /// Whether there may be packets from the guest.
    tx_ready: bool,
    /// Whether there may be commands.
    control_ready: bool,
}

impl<'m> Pair<'m> {
    /// The pair of this index of taps, whose `epoll` watches `signals` and its tap.
    #[expect(clippy::too_many_arguments, reason = "they are the fields")]
    pub fn new(
        memory: &'m GuestMemoryMmap,
        features: u64,
        queues: Queues,
        signals: Signals,
        epoll: Epoll,
        (taps, index): (Arc<[Tap]>, usize),
        link: Link,
        interrupt: &'m Interrupt,
    ) -> Self {
        let Queues { rx, tx, control } = queues;
        let mergeable = features & bit(VIRTIO_NET_F_MRG_RXBUF) != 0;
        // Packets and buffers from before the first wait may be there without a notification.
        Self {
            memory,
            rx: RxQueue::new(Ring::new(memory, rx), mergeable),
            tx: TxQueue::new(Ring::new(memory, tx)),
            control: control.map(|queue| Ring::new(memory, queue)),
            signals,
            epoll,
            taps,
            index,
            link,
            interrupt,
            stopping: false,
            tap_ready: true,
            rx_ready: true,
            tx_ready: true,
            control_ready: true,
        }
    }

    /// Works until it is told to stop, or until the driver breaks the rules: then the device has failed.
    pub fn run(mut self) {
        while !self.stopping {
            let timeout = if self.is_idle() { -1 } else { 0 };
            if let Err(error) = self.round(timeout) {
                self.interrupt.fail(&error);
                break;
            }
        }
    }

    /// True when there is nothing to do before the next event.
    pub fn is_idle(&self) -> bool {
        !(self.tx_ready || self.control_ready || (self.tap_ready && self.rx_ready))
    }

    /// One round; it first waits for an event, at most `timeout` milliseconds, or without a limit if that is -1.
    /// Returns how many events there were.
    ///
    /// # Errors
    /// The device has failed.
    pub fn round(&mut self, timeout: i32) -> Result<usize, PairError> {
        let mut events = [EpollEvent::default(); 8];
        let count = match self.epoll.wait(timeout, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            self.on_event(event.data());
        }
        // Another pair may have failed: then the driver has to reset the device first.
        if self.stopping || self.interrupt.has_failed() {
            (self.tx_ready, self.control_ready, self.rx_ready) = (false, false, false);
            return Ok(count);
        }
        self.send().map_err(broken("tx"))?;
        self.receive().map_err(broken("rx"))?;
        let controlled = self.answer().map_err(broken("control"))?;
        let received = self.rx.needs_interrupt().map_err(broken("rx"))?;
        let sent = self.tx.needs_interrupt().map_err(broken("tx"))?;
        if controlled || received || sent {
            self.interrupt.used();
        }
        Ok(count)
    }

    fn on_event(&mut self, token: u64) {
        // A read only clears the signal; a lost race with another reader would leave it clear too.
        match token {
            token::RX => {
                _ = self.signals.rx.read();
                self.rx_ready = true;
            }
            token::TX => {
                _ = self.signals.tx.read();
                self.tx_ready = true;
            }
            token::CONTROL => {
                _ = self.signals.control.as_ref().map(EventFd::read);
                self.control_ready = true;
            }
            token::STOP => self.stopping = true,
            _ => self.tap_ready = true,
        }
    }

    fn send(&mut self) -> Result<(), RingError> {
        for _ in 0..BUDGET {
            if !self.tx_ready {
                break;
            }
            match self.tx.send(&self.taps[self.index])? {
                Sent::Packet | Sent::Lost => {}
                Sent::NoPacket => self.tx_ready = false,
                Sent::Gone => self.tap_has_gone(),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), RingError> {
        for _ in 0..BUDGET {
            if !self.tap_ready || !self.rx_ready {
                break;
            }
            match self.rx.receive(&self.taps[self.index])? {
                Received::Packet | Received::Lost => {}
                Received::NoBuffers => self.rx_ready = false,
                Received::NoPacket => self.tap_ready = false,
                Received::Gone => {
                    self.tap_ready = false;
                    self.tap_has_gone();
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<bool, RingError> {
        let Some(ring) = self.control.as_mut().filter(|_| self.control_ready) else {
            self.control_ready = false;
            return Ok(false);
        };
        self.control_ready = control::answer(self.memory, ring, &self.taps)?;
        ring.needs_interrupt()
    }

    /// Handles a tap that has gone. The first queue is always attached, so its tap goes only with the interface.
    fn tap_has_gone(&self) {
        if self.index == 0 && self.link.take_down() {
            self.interrupt.configuration_changed();
        }
    }
}
