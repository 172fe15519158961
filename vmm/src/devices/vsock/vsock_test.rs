//! The device as the transport drives it, with its thread.

use std::{
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{Arc, mpsc},
    time::Duration,
};

use stockade_protocol::agent::{AGENT_PORT, READY_PORT};
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::{EFD_NONBLOCK, EventFd},
};

use super::{
    Vsock,
    fixture::*,
    packet::{Header, op},
};
use crate::virtio::{
    device::{Activation, VirtioDevice},
    interrupt::{Interrupt, Line},
    queue_fixture::QueueFixture,
};

const TIMEOUT: Duration = Duration::from_secs(20);
const GUEST_PORT: u32 = 40_000;

/// An active device and its guest.
struct Rig {
    guest: Guest,
    signals: Vec<EventFd>,
    irq: EventFd,
    interrupt: Arc<Interrupt>,
}

impl Rig {
    fn activate(device: &mut Vsock) -> Self {
        let mut guest = Guest::new();
        guest.offer_buffers(128);
        let event = QueueFixture::new(&guest.memory, EVENT_QUEUE, 8);
        let queues = vec![guest.rx.queue(), guest.tx.queue(), event.queue()];
        let signals: Vec<_> = (0..3).map(|_| EventFd::new(EFD_NONBLOCK).unwrap()).collect();
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let interrupt = Arc::new(Interrupt::new(Line::Event(irq.try_clone().unwrap())));
        device
            .activate(Activation {
                memory: guest.memory.clone(),
                features: device.features(),
                queues,
                queue_events: signals.iter().map(|signal| signal.try_clone().unwrap()).collect(),
                interrupt: Arc::clone(&interrupt),
            })
            .unwrap();
        Self { guest, signals, irq, interrupt }
    }

    fn send(&mut self, header: Header, data: &[u8]) {
        self.guest.send(header, data);
        self.signals[1].write(1).unwrap();
    }

    fn receive(&mut self) -> (Header, Vec<u8>) {
        loop {
            if let Some(packet) = self.guest.receive() {
                self.guest.offer_buffers(128);
                self.signals[0].write(1).unwrap();
                return packet;
            }
            self.wait_for_interrupt();
        }
    }

    fn wait_for_interrupt(&self) {
        let epoll = Epoll::new().unwrap();
        epoll.ctl(ControlOperation::Add, self.irq.as_raw_fd(), EpollEvent::new(EventSet::IN, 0)).unwrap();
        let ready = epoll.wait(TIMEOUT.as_millis() as i32, &mut [EpollEvent::default()]).unwrap();
        assert_eq!(ready, 1, "no interrupt");
        self.irq.read().unwrap();
    }
}

fn device() -> (Vsock, Host) {
    let (host, listener, ready, on_connect) = Host::new();
    (Vsock::new(GUEST_CID, listener, ready, on_connect, None).unwrap(), host)
}

fn with_timeout(socket: &UnixStream) {
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
}

#[test]
fn reserved_context_ids_are_refused() {
    for cid in [0, 1, 2, u64::from(u32::MAX), u64::from(u32::MAX) + 1] {
        let (_host, listener, ready, on_connect) = Host::new();
        assert!(Vsock::new(cid, listener, ready, on_connect, None).is_err());
    }
}

#[test]
fn configuration_space_is_the_context_id() {
    let (device, _host) = device();
    let mut bytes = [0xff; 10];
    device.read_config(0, &mut bytes);
    assert_eq!(bytes, [3, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    let mut bytes = [0xff; 2];
    device.read_config(7, &mut bytes);
    assert_eq!(bytes, [0, 0xff]);
    device.read_config(u64::MAX, &mut bytes);
}

#[test]
fn bytes_flow_both_ways_by_notification_and_interrupt() {
    let (mut device, mut host) = device();
    let mut rig = Rig::activate(&mut device);
    rig.send(header(op::REQUEST, GUEST_PORT, READY_PORT), &[]);
    assert_eq!(rig.receive().0.op, op::RESPONSE);
    rig.send(header(op::RW, GUEST_PORT, READY_PORT), b"ready");
    with_timeout(&host.ready);
    let mut bytes = [0; 5];
    host.ready.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ready");

    let mut client = host.connect();
    let (request, _) = rig.receive();
    assert_eq!((request.op, request.dst_port), (op::REQUEST, AGENT_PORT));
    rig.send(header(op::RESPONSE, AGENT_PORT, request.src_port), &[]);
    client.write_all(b"to the guest").unwrap();
    assert_eq!(rig.receive().1, b"to the guest");
    rig.send(header(op::RW, AGENT_PORT, request.src_port), b"to the host");
    with_timeout(&client);
    let mut bytes = [0; 11];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"to the host");
}

#[test]
fn a_reset_ends_connections_and_keeps_the_sockets() {
    let (mut device, mut host) = device();
    // As a kernel's driver does before it sets a device up.
    device.reset();
    let mut rig = Rig::activate(&mut device);
    device.reset();
    drop(rig);
    rig = Rig::activate(&mut device);
    rig.send(header(op::REQUEST, GUEST_PORT, READY_PORT), &[]);
    assert_eq!(rig.receive().0.op, op::RESPONSE);
    let mut client = host.connect();
    assert_eq!(rig.receive().0.op, op::REQUEST);
    device.reset();
    with_timeout(&client);
    with_timeout(&host.ready);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(host.ready.read(&mut [0]).unwrap(), 0);

    // There is one ready connection in the life of a device.
    let mut rig = Rig::activate(&mut device);
    rig.send(header(op::REQUEST, GUEST_PORT, READY_PORT), &[]);
    assert_eq!(rig.receive().0.op, op::RST);
}

#[test]
fn broken_rings_fail_the_device() {
    let (mut device, mut host) = device();
    let mut rig = Rig::activate(&mut device);
    rig.guest.tx.set_avail_index(1000);
    rig.signals[1].write(1).unwrap();
    rig.wait_for_interrupt();
    assert!(rig.interrupt.has_failed());
    device.reset();
    rig.interrupt.reset();
    let mut rig = Rig::activate(&mut device);
    rig.send(header(op::REQUEST, GUEST_PORT, READY_PORT), &[]);
    assert_eq!(rig.receive().0.op, op::RESPONSE);
    assert!(!rig.interrupt.has_failed());
    drop(device);
    with_timeout(&host.ready);
    assert_eq!(host.ready.read(&mut [0]).unwrap(), 0);
}

#[test]
fn queues_that_are_not_set_up_are_an_error() {
    let (mut device, _host) = device();
    let guest = Guest::new();
    let irq = EventFd::new(EFD_NONBLOCK).unwrap();
    let queues = (0..3).map(|_| <virtio_queue::Queue as virtio_queue::QueueT>::new(8).unwrap()).collect();
    let error = device
        .activate(Activation {
            memory: guest.memory.clone(),
            features: 0,
            queues,
            queue_events: (0..3).map(|_| EventFd::new(EFD_NONBLOCK).unwrap()).collect(),
            interrupt: Arc::new(Interrupt::new(Line::Event(irq))),
        })
        .unwrap_err();
    assert!(error.to_string().contains("unset"), "{error}");
}

#[test]
fn the_agent_is_announced_on_connecting() {
    let (host, listener, ready, _) = Host::new();
    let (sender, receiver) = mpsc::channel();
    let mut device =
        Vsock::new(GUEST_CID, listener, ready, Box::new(move || _ = sender.send(())), None).unwrap();
    let mut rig = Rig::activate(&mut device);
    assert!(receiver.try_recv().is_err());
    rig.send(header(op::REQUEST, GUEST_PORT, READY_PORT), &[]);
    receiver.recv_timeout(TIMEOUT).unwrap();
    drop(host);
}
