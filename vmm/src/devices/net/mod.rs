//! virtio-net (virtio 1.3 §5.1): an interface of the guest whose other end is a tap.
//!
//! ```text
//!  guest                      this device                           host
//!  ─────                      ───────────                           ────
//!  receiveq n ◀── readv into its buffers ──┐
//!  transmitq n ── writev from its buffers ─┼─ pair n: a thread ──── tap n of the same interface
//!  controlq ──── how many pairs are used ──┘  (pair 0 only)
//! ```
//!
//! Packets are not copied here: the kernel reads and writes them where the guest has them, each after the header in which
//! guest and tap tell each other of checksums and segments still to be made. The host's kernel checks that header.
//!
//! | module | is |
//! |---|---|
//! | [`tap`] | the interface's end in the host |
//! | [`ring`] | what both directions do with their queues |
//! | [`rx`], [`tx`] | to the guest, from the guest |
//! | [`control`] | the control queue |
//! | [`pair`] | the thread of a pair of queues |
//!
//! When the host removes the interface, the guest's interface goes down and stays down.

mod control;
mod pair;
mod ring;
mod rx;
mod tap;
mod tx;

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use stockade_protocol::vmm::{self, MAX_QUEUE_PAIRS};
use virtio_bindings::{
    virtio_ids::VIRTIO_ID_NET,
    virtio_net::{
        VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN,
        VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
        VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO,
        VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
        VIRTIO_NET_S_LINK_UP,
    },
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use self::{
    pair::{Pair, Queues, Signals},
    tap::Tap,
};
use crate::{
    seccomp,
    virtio::device::{ActivateError, Activation, VirtioDevice, read_space},
};

/// The device's name in errors.
const DEVICE: &str = "net";

/// Entries of a receive or transmit queue: as many as Linux uses.
const QUEUE_SIZE: u16 = 256;

/// Entries of the control queue: its driver waits for each answer.
const CONTROL_QUEUE_SIZE: u16 = 16;

/// Bytes of the header before each packet (§5.1.6, struct virtio_net_hdr with num_buffers).
const HEADER_SIZE: usize = 12;

/// Largest size of a packet with its header, in bytes: 64 KiB that are still to be segmented, an Ethernet header and a
/// VLAN tag.
const MAX_PACKET: usize = HEADER_SIZE + (64 << 10) + 18;

/// Smallest MTU of an interface that has IPv4, in bytes; Linux refuses a device with less.
const MIN_MTU: u16 = 68;

/// Stack of a pair's thread, in bytes.
const STACK: usize = 64 << 10;

/// Features that every device offers.
const FEATURES: u64 = bit(VIRTIO_NET_F_CSUM)
    | bit(VIRTIO_NET_F_GUEST_CSUM)
    | bit(VIRTIO_NET_F_MTU)
    | bit(VIRTIO_NET_F_MAC)
    | bit(VIRTIO_NET_F_GUEST_TSO4)
    | bit(VIRTIO_NET_F_GUEST_TSO6)
    | bit(VIRTIO_NET_F_GUEST_ECN)
    | bit(VIRTIO_NET_F_HOST_TSO4)
    | bit(VIRTIO_NET_F_HOST_TSO6)
    | bit(VIRTIO_NET_F_HOST_ECN)
    | bit(VIRTIO_NET_F_MRG_RXBUF)
    | bit(VIRTIO_NET_F_STATUS)
    | bit(VIRTIO_RING_F_INDIRECT_DESC)
    | bit(VIRTIO_RING_F_EVENT_IDX);

/// Features of a device whose tap segments UDP (Linux 6.2).
const UDP_SEGMENTATION: u64 =
    bit(VIRTIO_NET_F_GUEST_USO4) | bit(VIRTIO_NET_F_GUEST_USO6) | bit(VIRTIO_NET_F_HOST_USO);

/// Features of a device that has several pairs of queues.
const SEVERAL_PAIRS: u64 = bit(VIRTIO_NET_F_CTRL_VQ) | bit(VIRTIO_NET_F_MQ);

const fn bit(feature: u32) -> u64 {
    1 << feature
}

/// Why a device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no tap, or there are too many.
    #[error("a network device takes 1 to {MAX_QUEUE_PAIRS} taps, and {0} came with the request")]
    Taps(usize),
    /// The address is not a unicast address of one interface.
    #[error("{0:02x?} is not a hardware address of one interface")]
    Mac([u8; 6]),
    /// The MTU is too small.
    #[error("an MTU of {0} is less than {MIN_MTU}")]
    Mtu(u16),
    /// A descriptor is not a tap, or its settings are wrong.
    #[error("tap {index}: {source}")]
    Tap {
        /// The index of the tap.
        index: usize,
        /// What is wrong.
        source: tap::Error,
    },
}

/// Whether the host's interface exists; clones share the state.
#[derive(Clone, Debug)]
pub(crate) struct Link(Arc<AtomicBool>);

impl Link {
    fn is_up(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Takes the link down; returns whether it was up.
    fn take_down(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// A network device.
#[derive(Debug)]
pub struct Nic {
    mac: [u8; 6],
    mtu: u16,
    features: u64,
    queue_sizes: Vec<u16>,
    taps: Arc<[Tap]>,
    link: Link,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    thread: JoinHandle<()>,
    stop: EventFd,
}

impl Nic {
    /// A device over these taps, all of one interface.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn new(nic: vmm::Nic, taps: Vec<OwnedFd>) -> Result<Self, Error> {
        let vmm::Nic { mac, mtu } = nic;
        if !(1..=MAX_QUEUE_PAIRS).contains(&taps.len()) {
            return Err(Error::Taps(taps.len()));
        }
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(Error::Mac(mac));
        }
        if mtu < MIN_MTU {
            return Err(Error::Mtu(mtu));
        }
        let several = taps.len() > 1;
        let taps = taps
            .into_iter()
            .enumerate()
            .map(|(index, tap)| Tap::new(tap, several).map_err(|source| Error::Tap { index, source }))
            .collect::<Result<Arc<[Tap]>, _>>()?;
        let udp_segmentation = taps[0].segments_udp();
        Ok(Self::over(nic, taps, udp_segmentation))
    }

    fn over(nic: vmm::Nic, taps: Arc<[Tap]>, udp_segmentation: bool) -> Self {
        let several = taps.len() > 1;
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * taps.len()];
        queue_sizes.extend(several.then_some(CONTROL_QUEUE_SIZE));
        Self {
            mac: nic.mac,
            mtu: nic.mtu,
            features: FEATURES
                | if several { SEVERAL_PAIRS } else { 0 }
                | if udp_segmentation { UDP_SEGMENTATION } else { 0 },
            queue_sizes,
            taps,
            link: Link(Arc::new(AtomicBool::new(true))),
            threads: Vec::new(),
        }
    }

    fn start(&mut self, activation: Activation) -> Result<(), String> {
        let Activation { memory, features, queues, queue_events, interrupt } = activation;
        // Without VIRTIO_NET_F_MQ there is one pair, and the control queue follows it (§5.1.2).
        let pairs = if features & bit(VIRTIO_NET_F_MQ) != 0 { self.taps.len() } else { 1 };
        let mut queues = queues.into_iter().zip(queue_events);
        let mut take = || queues.next().ok_or("it has too few queues".to_owned());
        let pair_queues: Vec<_> =
            (0..pairs).map(|_| Ok((take()?, take()?))).collect::<Result<_, String>>()?;
        let mut control = if features & bit(VIRTIO_NET_F_CTRL_VQ) != 0 { Some(take()?) } else { None };
        let is_set_up = |(queue, _): &(Queue, EventFd)| queue.ready();
        if !pair_queues.first().is_some_and(|(rx, tx)| is_set_up(rx) && is_set_up(tx)) {
            return Err("the driver has left the first rx or tx queue unset".into());
        }

        self.taps[0].accept(features).map_err(|e| format!("TUNSETOFFLOAD: {e}"))?;
        let attach = |pairs| control::attach(&self.taps, pairs).map_err(|e| format!("TUNSETQUEUE: {e}"));
        // epoll(7) takes notice of a tap only while it is attached.
        attach(pairs)?;
        for (index, ((rx, rx_event), (tx, tx_event))) in pair_queues.into_iter().enumerate() {
            let (control, control_event) = control.take().filter(is_set_up).unzip();
            let stop = EventFd::new(EFD_NONBLOCK).map_err(|e| format!("eventfd: {e}"))?;
            let signals = Signals {
                rx: rx_event,
                tx: tx_event,
                control: control_event,
                stop: stop.try_clone().map_err(|e| format!("eventfd: {e}"))?,
            };
            let epoll = signals.watch(&self.taps[index]).map_err(|e| format!("epoll: {e}"))?;
            let queues = Queues { rx, tx, control };
            let (taps, link) = (Arc::clone(&self.taps), self.link.clone());
            let (memory, interrupt) = (memory.clone(), Arc::clone(&interrupt));
            let run = move || match seccomp::restrict(seccomp::Thread::Net) {
                Ok(()) => {
                    Pair::new(&memory, features, queues, signals, epoll, (taps, index), link, &interrupt)
                        .run();
                }
                Err(error) => interrupt.fail(&error),
            };
            let thread = thread::Builder::new()
                .name(format!("{DEVICE}{index}"))
                .stack_size(STACK)
                .spawn(run)
                .map_err(|e| format!("starting its thread: {e}"))?;
            self.threads.push(Thread { thread, stop });
        }
        // The driver begins with one pair (§5.1.5).
        attach(1)
    }
}

impl VirtioDevice for Nic {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let status = if self.link.is_up() { VIRTIO_NET_S_LINK_UP as u16 } else { 0 };
        // At most MAX_QUEUE_PAIRS.
        let pairs = self.taps.len() as u16;
        let mut space = [0; 12];
        space[..6].copy_from_slice(&self.mac);
        space[6..8].copy_from_slice(&status.to_le_bytes());
        space[8..10].copy_from_slice(&pairs.to_le_bytes());
        space[10..].copy_from_slice(&self.mtu.to_le_bytes());
        read_space(&space, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.reset();
        self.start(activation).map_err(|reason| {
            self.reset();
            ActivateError { device: DEVICE, reason }
        })
    }

    /// No template has a network device, because packets from the host's interface would be lost.
    fn stop(&mut self) -> Option<Vec<Queue>> {
        for Thread { stop, .. } in &self.threads {
            // The counter is 0 or 1: a write cannot fail.
            let _ = stop.write(1);
        }
        for Thread { thread, .. } in self.threads.drain(..) {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
        None
    }
}

impl Drop for Nic {
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
mod net_test;
