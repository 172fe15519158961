//! The vsock device, its packets (virtio 1.3 §5.10.6), and the guest's end of connections.

use alloc::vec::Vec;

use crate::cpu;
use crate::virtio::{Ring, Slot, VERSION_1, WRITE, id, pages};

pub mod op {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

const RX: u32 = 0;
const TX: u32 = 1;
const EVENT: u32 = 2;
const BUFFERS: u16 = 64;
const BUFFER_SIZE: u64 = 4096;
pub const HEADER_SIZE: usize = 44;

/// What the guest says that it can take on one connection.
pub const WINDOW: u32 = 1 << 20;

/// Most data in a packet of this driver.
const MAX_DATA: usize = 16 << 10;

pub const HOST: u64 = 2;

#[derive(Clone, Copy, Default)]
pub struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Header {
    fn write(&self, at: u64) {
        cpu::write64(at, self.src_cid);
        cpu::write64(at + 8, self.dst_cid);
        for (index, field) in [self.src_port, self.dst_port, self.len].iter().enumerate() {
            cpu::write32(at + 16 + 4 * index as u64, *field);
        }
        cpu::write16(at + 28, self.kind);
        cpu::write16(at + 30, self.op);
        for (index, field) in [self.flags, self.buf_alloc, self.fwd_cnt].iter().enumerate() {
            cpu::write32(at + 32 + 4 * index as u64, *field);
        }
    }

    fn read(at: u64) -> Self {
        Self {
            src_cid: cpu::read64(at),
            dst_cid: cpu::read64(at + 8),
            src_port: cpu::read32(at + 16),
            dst_port: cpu::read32(at + 20),
            len: cpu::read32(at + 24),
            kind: cpu::read16(at + 28),
            op: cpu::read16(at + 30),
            flags: cpu::read32(at + 32),
            buf_alloc: cpu::read32(at + 36),
            fwd_cnt: cpu::read32(at + 40),
        }
    }
}

/// The device.
pub struct Vsock {
    pub slot: Slot,
    pub cid: u64,
    rx: Ring,
    tx: Ring,
    buffers: u64,
    outgoing: u64,
}

impl Vsock {
    /// The driver of the machine's device.
    pub fn start() -> Option<Self> {
        let slot = Slot::find(id::VSOCK)?;
        let mut vsock = Self {
            slot,
            cid: 0,
            rx: Ring::new(BUFFERS),
            tx: Ring::new(BUFFERS),
            buffers: pages(BUFFER_SIZE * u64::from(BUFFERS)),
            outgoing: pages((HEADER_SIZE + MAX_DATA) as u64),
        };
        slot.negotiate(VERSION_1);
        vsock.cid = slot.read(0x100).into();
        slot.set_queue(RX, &vsock.rx);
        slot.set_queue(TX, &vsock.tx);
        slot.set_queue(EVENT, &Ring::new(8));
        for index in 0..BUFFERS {
            let address = vsock.buffers + BUFFER_SIZE * u64::from(index);
            vsock.rx.describe(index, address, BUFFER_SIZE as u32, WRITE, 0);
            vsock.rx.offer(index);
        }
        slot.go();
        slot.notify(RX);
        Some(vsock)
    }

    /// The next packet of the host.
    pub fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        let (head, _) = self.rx.take()?;
        let at = self.buffers + BUFFER_SIZE * u64::from(head);
        let header = Header::read(at);
        let length = u64::from(header.len).min(BUFFER_SIZE - HEADER_SIZE as u64);
        let data = (0..length).map(|index| cpu::read8(at + HEADER_SIZE as u64 + index)).collect();
        self.rx.offer(head as u16);
        self.slot.notify(RX);
        Some((header, data))
    }

    /// Sends a packet as it is; its header need not tell the truth. False where the device has failed.
    pub fn send(&mut self, header: &Header, data: &[u8]) -> bool {
        header.write(self.outgoing);
        for (address, byte) in (self.outgoing + HEADER_SIZE as u64..).zip(data) {
            cpu::write8(address, *byte);
        }
        self.tx.describe(0, self.outgoing, (HEADER_SIZE + data.len()) as u32, 0, 0);
        self.tx.offer(0);
        self.slot.notify(TX);
        self.tx.wait(self.slot).is_some()
    }

    /// What every honest packet to the host has.
    pub fn header(&self, guest_port: u32, host_port: u32, op: u16) -> Header {
        Header {
            src_cid: self.cid,
            dst_cid: HOST,
            src_port: guest_port,
            dst_port: host_port,
            kind: 1,
            op,
            buf_alloc: WINDOW,
            ..Header::default()
        }
    }
}

/// What is known of one connection.
pub struct Stream {
    pub guest_port: u32,
    pub host_port: u32,
    received: u32,
    sent: u32,
    their_buffer: u32,
    they_forwarded: u32,
    pub open: bool,
}

impl Stream {
    pub fn new(header: &Header) -> Self {
        let mut stream = Self {
            guest_port: header.dst_port,
            host_port: header.src_port,
            received: 0,
            sent: 0,
            their_buffer: 0,
            they_forwarded: 0,
            open: true,
        };
        stream.learn(header, 0);
        stream
    }

    /// Takes a packet into account.
    pub fn learn(&mut self, header: &Header, data: usize) {
        self.their_buffer = header.buf_alloc;
        self.they_forwarded = header.fwd_cnt;
        self.received = self.received.wrapping_add(data as u32);
    }

    pub fn header(&self, vsock: &Vsock, op: u16) -> Header {
        Header { fwd_cnt: self.received, ..vsock.header(self.guest_port, self.host_port, op) }
    }

    /// Sends as much as there is credit for, and returns how much that was.
    pub fn send(&mut self, vsock: &mut Vsock, data: &[u8]) -> usize {
        let in_flight = self.sent.wrapping_sub(self.they_forwarded);
        let room = self.their_buffer.saturating_sub(in_flight) as usize;
        let length = data.len().min(room).min(MAX_DATA);
        if length > 0 && self.open {
            let header = Header { len: length as u32, ..self.header(vsock, op::RW) };
            vsock.send(&header, &data[..length]);
            self.sent = self.sent.wrapping_add(length as u32);
        }
        length
    }

    pub fn control(&mut self, vsock: &mut Vsock, op: u16, flags: u32) {
        let header = Header { flags, ..self.header(vsock, op) };
        vsock.send(&header, &[]);
    }
}
