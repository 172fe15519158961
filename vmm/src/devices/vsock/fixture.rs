//! A guest's vsock driver and an agent's host, as small as tests need them, around a worker that runs round by round.

use std::{
    collections::{HashMap, VecDeque},
    io::{Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    Endpoints, Ready,
    packet::{HEADER_SIZE, HOST_CID, Header, TYPE_STREAM, op},
    queues::{RxQueue, TxQueue},
    worker::{Signals, Worker, WorkerError},
};
use crate::virtio::{
    interrupt::{Interrupt, Line},
    queue_fixture::{Buffer, QueueFixture},
};

pub const GUEST_CID: u64 = 3;
const QUEUE_SIZE: u16 = 128;
const MEMORY: usize = 16 << 20;
const RX_QUEUE: u64 = 0x1000;
const TX_QUEUE: u64 = RX_QUEUE + QueueFixture::FOOTPRINT;
pub const EVENT_QUEUE: u64 = TX_QUEUE + QueueFixture::FOOTPRINT;
const RX_BUFFERS: u64 = 0x10_0000;
const TX_BUFFERS: u64 = 0x20_0000;
/// Linux's: a page less its bookkeeping.
pub const RX_BUFFER_SIZE: u32 = 3776;
const TX_BUFFER_SIZE: u64 = 0x1_0000 + 0x1000;

/// The guest: memory, queues and a driver that splits each packet over descriptors as asked.
pub struct Guest {
    pub memory: GuestMemoryMmap,
    pub rx: QueueFixture,
    pub tx: QueueFixture,
    tx_slots: Vec<u64>,
    tx_used: HashMap<u16, u64>,
}

impl Guest {
    pub fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        Self {
            rx: QueueFixture::new(&memory, RX_QUEUE, QUEUE_SIZE),
            tx: QueueFixture::new(&memory, TX_QUEUE, QUEUE_SIZE),
            memory,
            tx_slots: (0..u64::from(QUEUE_SIZE)).map(|slot| TX_BUFFERS + slot * TX_BUFFER_SIZE).collect(),
            tx_used: HashMap::new(),
        }
    }

    /// Offers up to `count` receive buffers.
    pub fn offer_buffers(&mut self, count: u16) {
        for _ in 0..count {
            let Some(head) = self.rx.next_head() else { break };
            let address = Self::rx_address(head);
            self.rx.offer(&[Buffer { address, length: RX_BUFFER_SIZE, writable: true }]).unwrap();
        }
    }

    /// Sends a packet, its bytes in buffers of the given lengths and the last in the rest. False when the queue is full.
    pub fn send_split(&mut self, header: Header, data: &[u8], lengths: &[usize]) -> bool {
        while let Some((head, _)) = self.tx.used() {
            self.tx_slots.extend(self.tx_used.remove(&head));
        }
        let Some(base) = self.tx_slots.pop() else { return false };
        let mut bytes = Header { len: data.len() as u32, ..header }.encode().to_vec();
        bytes.extend(data);
        let mut buffers = Vec::new();
        let (mut address, mut left) = (base, bytes.len());
        for length in lengths.iter().copied().chain([usize::MAX]) {
            let length = length.min(left);
            if length > 0 {
                buffers.push(Buffer { address, length: length as u32, writable: false });
                address += length as u64;
                left -= length;
            }
        }
        self.memory.write_slice(&bytes, GuestAddress(base)).unwrap();
        match self.tx.offer(&buffers) {
            Some(head) => {
                self.tx_used.insert(head, base);
                true
            }
            None => {
                self.tx_slots.push(base);
                false
            }
        }
    }

    /// Sends a packet as Linux does: a buffer for the header, one for the data.
    pub fn send(&mut self, header: Header, data: &[u8]) {
        assert!(self.send_split(header, data, &[HEADER_SIZE]), "the tx queue is full");
    }

    /// The next packet from the device.
    pub fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        let (head, written) = self.rx.used()?;
        let mut bytes = vec![0; written as usize];
        self.memory.read_slice(&mut bytes, GuestAddress(Self::rx_address(head))).unwrap();
        let header = Header::decode(bytes.first_chunk().unwrap());
        let data = bytes.split_off(HEADER_SIZE);
        assert_eq!(header.len as usize, data.len());
        Some((header, data))
    }

    fn rx_address(head: u16) -> u64 {
        RX_BUFFERS + u64::from(head) * 0x1000
    }
}

/// A header from the guest's `port` to the host's.
pub fn header(op: u16, guest_port: u32, host_port: u32) -> Header {
    Header {
        src_cid: GUEST_CID,
        dst_cid: HOST_CID,
        src_port: guest_port,
        dst_port: host_port,
        socket_type: TYPE_STREAM,
        op,
        buf_alloc: 256 << 10,
        ..Header::default()
    }
}

/// The host's sockets of a device.
pub struct Host {
    address: SocketAddr,
    pub ready: UnixStream,
    pub announced: Arc<AtomicUsize>,
}

impl Host {
    pub fn new() -> (Self, UnixListener, UnixStream, Box<dyn FnOnce() + Send>) {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("stockade-test-{}-{count}", process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (ready, device_end) = UnixStream::pair().unwrap();
        let announced = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&announced);
        let on_connect = Box::new(move || _ = counter.fetch_add(1, Ordering::SeqCst));
        (Self { address, ready, announced }, listener, device_end, on_connect)
    }

    /// A process of the host connects to the agent.
    pub fn connect(&self) -> UnixStream {
        UnixStream::connect_addr(&self.address).unwrap()
    }
}

/// A worker without its thread, its guest and its host.
pub struct Bench {
    pub guest: Guest,
    pub host: Host,
    pub worker: Worker,
    irq: EventFd,
    rx_signal: EventFd,
    tx_signal: EventFd,
    /// Packets for the guest, as they came.
    pub inbox: VecDeque<(Header, Vec<u8>)>,
    /// Bytes that the guest has taken from each connection (host's port), which it reports in packets.
    forwarded: HashMap<u32, u32>,
}

impl Bench {
    /// A guest that has provided as many buffers as its queue holds.
    pub fn new() -> Self {
        Self::with_event_idx(true)
    }

    pub fn with_event_idx(event_idx: bool) -> Self {
        let mut guest = Guest::new();
        guest.offer_buffers(QUEUE_SIZE);
        let (host, listener, ready, on_connect) = Host::new();
        let endpoints =
            Endpoints { listener, ready: Some(Ready { socket: ready, on_connect }), renewal: None };
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let (rx_signal, tx_signal) = (event(), event());
        let signals =
            Signals { rx: rx_signal.try_clone().unwrap(), tx: tx_signal.try_clone().unwrap(), stop: event() };
        let epoll = signals.watch().unwrap();
        let irq = event();
        let interrupt = Arc::new(Interrupt::new(Line::Event(irq.try_clone().unwrap())));
        let queues = [&guest.rx, &guest.tx].map(|fixture| {
            let mut queue = fixture.queue();
            virtio_queue::QueueT::set_event_idx(&mut queue, event_idx);
            queue
        });
        let [rx, tx] = queues;
        let worker = Worker::new(
            guest.memory.clone(),
            interrupt,
            signals,
            (RxQueue::new(rx), TxQueue::new(tx)),
            epoll,
            (GUEST_CID, endpoints),
        );
        Self {
            guest,
            host,
            worker,
            irq,
            rx_signal,
            tx_signal,
            inbox: VecDeque::new(),
            forwarded: HashMap::new(),
        }
    }

    /// How many interrupts there were since the last call.
    pub fn interrupts(&self) -> u64 {
        self.irq.read().unwrap_or(0)
    }

    /// Runs the worker until it would wait, refilling the rx queue and collecting what came, as Linux does.
    pub fn run(&mut self) {
        self.try_run().unwrap();
    }

    pub fn try_run(&mut self) -> Result<(), WorkerError> {
        loop {
            self.rounds_with_signals()?;
            let before = self.inbox.len();
            self.collect();
            if self.inbox.len() == before {
                return Ok(());
            }
            self.guest.offer_buffers(QUEUE_SIZE);
        }
    }

    /// Runs the worker until it would wait, without new receive buffers.
    pub fn run_starved(&mut self) {
        self.tx_signal.write(1).unwrap();
        self.rounds().unwrap();
    }

    /// Notifies the worker of both queues and runs it until it would wait.
    pub fn rounds_with_signals(&mut self) -> Result<(), WorkerError> {
        self.tx_signal.write(1).unwrap();
        self.rx_signal.write(1).unwrap();
        self.rounds()
    }

    /// Runs the worker until it would wait.
    fn rounds(&mut self) -> Result<(), WorkerError> {
        while self.worker.round(0)? > 0 || !self.worker.is_idle() {}
        Ok(())
    }

    pub fn collect(&mut self) {
        while let Some((header, data)) = self.guest.receive() {
            let forwarded = self.forwarded.entry(header.src_port).or_default();
            *forwarded = forwarded.wrapping_add(data.len() as u32);
            self.inbox.push_back((header, data));
        }
    }

    /// The next packet for the guest.
    pub fn next(&mut self) -> (Header, Vec<u8>) {
        self.run();
        self.inbox.pop_front().expect("a packet for the guest")
    }

    /// Sends a packet without data and runs.
    pub fn send(&mut self, op: u16, guest_port: u32, host_port: u32) {
        self.send_data(header(op, guest_port, host_port), &[]);
    }

    /// Sends a packet, with the credit that the guest has freed by reading all that came, and runs.
    pub fn send_data(&mut self, header: Header, data: &[u8]) {
        let fwd_cnt = self.forwarded.get(&header.dst_port).copied().unwrap_or(0);
        self.guest.send(Header { fwd_cnt, ..header }, data);
        self.run();
    }

    /// The agent connects to the ready port from `port`.
    pub fn agent_connects(&mut self, port: u32) {
        self.send(op::REQUEST, port, stockade_protocol::agent::READY_PORT);
        let (answer, _) = self.next();
        assert_eq!(answer.op, op::RESPONSE);
    }

    /// An established connection from the host, and the host's port of it.
    pub fn establish(&mut self) -> (UnixStream, u32) {
        let socket = self.host.connect();
        let (request, _) = self.next();
        assert_eq!(request.op, op::REQUEST);
        self.send(op::RESPONSE, request.dst_port, request.src_port);
        (socket, request.src_port)
    }
}

/// Reads `count` bytes while the worker runs.
pub fn read_while_running(bench: &mut Bench, socket: &mut UnixStream, count: usize) -> Vec<u8> {
    socket.set_nonblocking(true).unwrap();
    let mut bytes = vec![0; count];
    let mut done = 0;
    while done < count {
        match socket.read(&mut bytes[done..]) {
            Ok(0) => panic!("end of file after {done} of {count} bytes"),
            Ok(read) => done += read,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                bench.run();
            }
        }
    }
    bytes
}

/// Bytes that differ from their neighbours, so that loss and disorder show.
pub fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (seed..seed + length).map(|index| (index % 251) as u8 ^ (index >> 8) as u8).collect()
}

/// Writes all bytes while the worker runs.
pub fn write_while_running(bench: &mut Bench, socket: &mut UnixStream, mut bytes: &[u8]) {
    socket.set_nonblocking(true).unwrap();
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                bench.run();
            }
        }
    }
}
