//! A driver for unit tests of devices: guest memory, queues, and an interrupt to wait for.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    device::{Activation, VirtioDevice},
    failures::Failures,
    interrupt::{Interrupt, Line},
    queue_fixture::{Buffer, QueueFixture},
};

/// Where the queues begin.
const QUEUES: u64 = 0x1_0000;

/// Where buffers may be.
pub const BUFFERS: u64 = 0x8_0000;

/// Bytes of guest memory.
pub const MEMORY: usize = 4 << 20;

/// An active device and its driver.
pub struct DeviceFixture {
    /// Guest memory.
    pub memory: GuestMemoryMmap,
    /// The device's queues.
    pub queues: Vec<QueueFixture>,
    /// Its interrupt.
    pub interrupt: Arc<Interrupt>,
    events: Vec<EventFd>,
    irq: EventFd,
}

impl DeviceFixture {
    /// Activates `device`.
    pub fn activate(device: &mut dyn VirtioDevice) -> Self {
        Self::activate_with(device, |interrupt| interrupt)
    }

    /// The same, where it is kept why the device fails.
    pub fn activate_reporting(device: &mut dyn VirtioDevice, failures: &Failures) -> Self {
        Self::activate_with(device, |interrupt| interrupt.reporting("device", failures.clone()))
    }

    fn activate_with(device: &mut dyn VirtioDevice, with: impl FnOnce(Interrupt) -> Interrupt) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        // Reading it waits for an interrupt.
        let irq = EventFd::new(0).unwrap();
        let interrupt = Arc::new(with(Interrupt::new(Line::Event(irq.try_clone().unwrap()))));
        let bases = (0..).map(|index| QUEUES + index * QueueFixture::FOOTPRINT);
        let sizes = device.queue_max_sizes().to_vec();
        let queues: Vec<_> =
            sizes.iter().zip(bases).map(|(size, base)| QueueFixture::new(&memory, base, *size)).collect();
        let events: Vec<_> = sizes.iter().map(|_| EventFd::new(EFD_NONBLOCK).unwrap()).collect();
        device
            .activate(Activation {
                memory: memory.clone(),
                features: 0,
                queues: queues.iter().map(QueueFixture::queue).collect(),
                queue_events: events.iter().map(|event| event.try_clone().unwrap()).collect(),
                interrupt: Arc::clone(&interrupt),
            })
            .unwrap();
        Self { memory, queues, interrupt, events, irq }
    }

    /// Tells the device of what was made available on a queue and waits for its interrupt.
    pub fn notify(&self, queue: usize) {
        self.kick(queue);
        self.wait();
    }

    /// Tells the device of what was made available on a queue.
    pub fn kick(&self, queue: usize) {
        self.events[queue].write(1).unwrap();
    }

    /// Waits for the device's interrupt.
    pub fn wait(&self) {
        self.irq.read().unwrap();
    }

    /// Offers `request` and room for a reply of `room` bytes; returns the reply, or `None` if the device failed instead.
    pub fn ask(&mut self, queue: usize, request: &[u8], room: u32) -> Option<Vec<u8>> {
        let reply = BUFFERS + 0x10_0000;
        self.memory.write_slice(request, GuestAddress(BUFFERS)).unwrap();
        let mut buffers = vec![Buffer { address: BUFFERS, length: request.len() as u32, writable: false }];
        buffers.push(Buffer { address: reply, length: room, writable: true });
        buffers.retain(|buffer| buffer.length > 0);
        self.queues[queue].offer(&buffers).unwrap();
        self.events[queue].write(1).unwrap();
        // Interrupts may tell of other things too.
        let length = loop {
            self.irq.read().unwrap();
            if self.interrupt.has_failed() {
                return None;
            }
            if let Some((_, length)) = self.queues[queue].used() {
                break length;
            }
        };
        let mut bytes = vec![0; length as usize];
        self.memory.read_slice(&mut bytes, GuestAddress(reply)).unwrap();
        Some(bytes)
    }
}
