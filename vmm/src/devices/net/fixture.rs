//! A guest's network driver and the host's end of a tap, as small as tests need them, around a pair that runs round by
//! round. A socket that keeps packets apart stands in for the tap.

use std::{
    collections::HashMap,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, atomic::AtomicBool},
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    HEADER_SIZE, Link, bit,
    pair::{Pair, PairError, Queues, Signals},
    tap::Tap,
};
use crate::virtio::{
    interrupt::{Interrupt, Line},
    queue_fixture::{Buffer, QueueFixture},
};

const QUEUES: u64 = 0x1000;
pub const MEMORY: usize = 4 << 20;
pub const RX_BUFFERS: u64 = 0x10_0000;
pub const TX_BUFFERS: u64 = 0x20_0000;
pub const CONTROL_BUFFERS: u64 = 0x30_0000;

/// Entries of each queue.
pub const QUEUE_SIZE: u16 = 256;

/// A socket in the place of a tap, and the host's end of it.
pub fn fake_tap() -> (OwnedFd, Tap) {
    let (host, tap) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    (host, Tap::over(tap).unwrap())
}

/// What outlives the pair under test.
pub struct Machine {
    pub memory: GuestMemoryMmap,
    pub interrupt: Interrupt,
    pub irq: EventFd,
    pub link: Link,
}

impl Machine {
    pub fn new() -> Self {
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        Self {
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap(),
            interrupt: Interrupt::new(Line::Event(irq.try_clone().unwrap())),
            irq,
            link: Link(Arc::new(AtomicBool::new(true))),
        }
    }
}

/// A pair without its thread, its guest and its host.
pub struct Bench<'m> {
    pub machine: &'m Machine,
    pub rx: QueueFixture,
    pub tx: QueueFixture,
    pub control: QueueFixture,
    pub pair: Pair<'m>,
    /// The host's end of the tap.
    pub host: Option<OwnedFd>,
    signals: [EventFd; 3],
    next_rx: u64,
    /// Address and length of what was offered to the rx queue, by head.
    offered: HashMap<u16, (u64, u32)>,
}

impl<'m> Bench<'m> {
    /// A guest that has negotiated `features`.
    pub fn new(machine: &'m Machine, features: u64) -> Self {
        let memory = &machine.memory;
        let fixture = |index| QueueFixture::new(memory, QUEUES + index * QueueFixture::FOOTPRINT, QUEUE_SIZE);
        let (rx, tx, control) = (fixture(0), fixture(1), fixture(2));
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let signals = [event(), event(), event()];
        let [rx_signal, tx_signal, control_signal] =
            signals.each_ref().map(|event| event.try_clone().unwrap());
        let watched = Signals { rx: rx_signal, tx: tx_signal, control: Some(control_signal), stop: event() };
        let (host, tap) = fake_tap();
        let (_, other) = fake_tap();
        let epoll = watched.watch(&tap).unwrap();
        let [rx_queue, tx_queue, control_queue] = [&rx, &tx, &control].map(|fixture| {
            let mut queue = fixture.queue();
            queue.set_event_idx(features & bit(VIRTIO_RING_F_EVENT_IDX) != 0);
            queue
        });
        let queues = Queues { rx: rx_queue, tx: tx_queue, control: Some(control_queue) };
        let taps = (Arc::from([tap, other]), 0);
        let pair = Pair::new(
            memory,
            features,
            queues,
            watched,
            epoll,
            taps,
            machine.link.clone(),
            &machine.interrupt,
        );
        Self {
            machine,
            rx,
            tx,
            control,
            pair,
            host: Some(host),
            signals,
            next_rx: RX_BUFFERS,
            offered: HashMap::new(),
        }
    }

    /// Offers a receive buffer of `length` bytes.
    pub fn offer(&mut self, length: u32) {
        // Twice as much room as any test offers at a time.
        if self.next_rx + u64::from(length) > TX_BUFFERS {
            self.next_rx = RX_BUFFERS;
        }
        let address = self.next_rx;
        self.next_rx += u64::from(length);
        let head = self.rx.offer(&[Buffer { address, length, writable: true }]).unwrap();
        self.offered.insert(head, (address, length));
    }

    /// Notifies the pair of all queues and runs it until it would wait.
    pub fn run(&mut self) -> Result<(), PairError> {
        for signal in &self.signals {
            signal.write(1).unwrap();
        }
        while self.pair.round(0)? > 0 || !self.pair.is_idle() {}
        Ok(())
    }

    /// The host sends a packet: a header of zeros and `data`.
    pub fn send(&self, data: &[u8]) {
        let mut packet = vec![0; HEADER_SIZE];
        packet.extend(data);
        let host = self.host.as_ref().unwrap().as_raw_fd();
        assert_eq!(send(host, &packet, MsgFlags::MSG_DONTWAIT).unwrap(), packet.len());
    }

    /// The next packet for the host, with its header.
    pub fn arrived(&self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 1 << 17];
        let host = self.host.as_ref().unwrap().as_raw_fd();
        let length = recv(host, &mut packet, MsgFlags::MSG_DONTWAIT).ok()?;
        packet.truncate(length);
        Some(packet)
    }

    /// The next packet for the guest: how many buffers it took, and its data.
    pub fn received(&mut self) -> Option<(u16, Vec<u8>)> {
        let mut packet = self.used_buffer()?;
        let count = u16::from_le_bytes([packet[10], packet[11]]);
        for _ in 1..count {
            packet.extend(self.used_buffer().expect("the rest of a packet"));
        }
        Some((count, packet.split_off(HEADER_SIZE)))
    }

    fn used_buffer(&mut self) -> Option<Vec<u8>> {
        let (head, written) = self.rx.used()?;
        let (address, length) = self.offered.remove(&head).unwrap();
        assert!(written <= length);
        let mut bytes = vec![0; written as usize];
        self.machine.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        Some(bytes)
    }

    /// The guest sends `bytes`, a header and a packet, in buffers of the given lengths and the last in the rest.
    pub fn transmit(&mut self, bytes: &[u8], lengths: &[usize]) {
        self.machine.memory.write_slice(bytes, GuestAddress(TX_BUFFERS)).unwrap();
        let mut buffers = Vec::new();
        let (mut address, mut left) = (TX_BUFFERS, bytes.len());
        for length in lengths.iter().copied().chain([usize::MAX]) {
            let length = length.min(left);
            if length > 0 {
                buffers.push(Buffer { address, length: length as u32, writable: false });
                (address, left) = (address + length as u64, left - length);
            }
        }
        self.tx.offer(&buffers).unwrap();
    }

    /// The answer to a command.
    pub fn command(&mut self, bytes: &[u8]) -> u8 {
        let memory = &self.machine.memory;
        let answer = CONTROL_BUFFERS + 0x1000;
        memory.write_slice(bytes, GuestAddress(CONTROL_BUFFERS)).unwrap();
        memory.write_obj(0xffu8, GuestAddress(answer)).unwrap();
        self.control
            .offer(&[
                Buffer { address: CONTROL_BUFFERS, length: bytes.len() as u32, writable: false },
                Buffer { address: answer, length: 1, writable: true },
            ])
            .unwrap();
        self.run().unwrap();
        assert_eq!(self.control.used().unwrap().1, 1);
        memory.read_obj(GuestAddress(answer)).unwrap()
    }
}

/// Bytes that differ from their neighbours, so that loss and disorder show.
pub fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (seed..seed + length).map(|index| (index % 251) as u8 ^ (index >> 8) as u8).collect()
}
