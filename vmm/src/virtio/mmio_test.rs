use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::{EVENT_IDX, MmioTransport, VERSION_1, register as r, status as s};
use crate::virtio::{
    device::{ActivateError, Activation, VirtioDevice},
    failures::Failures,
    interrupt::Line,
};

const FEATURE: u64 = 1 << 3;

/// What the device saw.
#[derive(Default)]
struct Log {
    activations: AtomicU32,
    resets: AtomicU32,
    /// While it is active.
    queues: Mutex<Option<Vec<Queue>>>,
}

struct Device(Arc<Log>);

impl VirtioDevice for Device {
    fn device_type(&self) -> u32 {
        42
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[64, 16]
    }

    fn features(&self) -> u64 {
        FEATURE | EVENT_IDX
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        if offset == 0 {
            data.fill(0xab);
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        assert_eq!(activation.queues.len(), 2);
        *self.0.queues.lock().unwrap() = Some(activation.queues);
        self.0.activations.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn stop(&mut self) -> Option<Vec<Queue>> {
        self.0.resets.fetch_add(1, Ordering::Relaxed);
        self.0.queues.lock().unwrap().take()
    }
}

struct Guest {
    transport: MmioTransport,
    log: Arc<Log>,
    failures: Failures,
    irq: EventFd,
}

impl Guest {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let log = Arc::new(Log::default());
        let irq = EventFd::new(0).unwrap();
        let failures = Failures::new().unwrap();
        let line = Line::Event(irq.try_clone().unwrap());
        let device = Box::new(Device(Arc::clone(&log)));
        let transport = MmioTransport::new(device, memory, line, Box::new(|| ()), &failures).unwrap();
        Self { transport, log, failures, irq }
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    fn negotiate(&mut self, features: u64) {
        self.write(r::STATUS, s::ACKNOWLEDGE);
        self.write(r::STATUS, s::ACKNOWLEDGE | s::DRIVER);
        for half in 0..2 {
            self.write(r::DRIVER_FEATURES_SELECT, half);
            self.write(r::DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        self.write(r::STATUS, s::ACKNOWLEDGE | s::DRIVER | s::FEATURES_OK);
    }

    fn set_up_queue(&mut self, queue: u32, size: u32, base: u32) {
        self.write(r::QUEUE_SELECT, queue);
        self.write(r::QUEUE_SIZE, size);
        for (low, place) in [
            (r::QUEUE_DESCRIPTORS_LOW, base),
            (r::QUEUE_DRIVER_LOW, base + 0x1000),
            (r::QUEUE_DEVICE_LOW, base + 0x2000),
        ] {
            self.write(low, place);
            self.write(low + 4, 0);
        }
        self.write(r::QUEUE_READY, 1);
    }

    fn start(&mut self) {
        let status = self.read(r::STATUS);
        self.write(r::STATUS, status | s::DRIVER_OK);
    }

    fn activations(&self) -> u32 {
        self.log.activations.load(Ordering::Relaxed)
    }

    /// Why the device has failed.
    fn cause(&self) -> String {
        self.failures.all()[0].cause.clone()
    }

    fn needs_reset(&self) -> bool {
        self.read(r::STATUS) & s::DEVICE_NEEDS_RESET != 0
    }
}

#[test]
fn a_driver_finds_and_starts_the_device() {
    let mut guest = Guest::new();
    assert_eq!(guest.read(r::MAGIC), u32::from_le_bytes(*b"virt"));
    assert_eq!(guest.read(r::VERSION), 2);
    assert_eq!(guest.read(r::DEVICE_ID), 42);
    guest.write(r::DEVICE_FEATURES_SELECT, 1);
    assert_eq!(u64::from(guest.read(r::DEVICE_FEATURES)) << 32, VERSION_1);
    guest.write(r::QUEUE_SELECT, 1);
    assert_eq!(guest.read(r::QUEUE_SIZE_MAX), 16);
    guest.write(r::QUEUE_SELECT, 2);
    assert_eq!(guest.read(r::QUEUE_SIZE_MAX), 0);
    assert_eq!(guest.read(r::CONFIG), 0xabab_abab);
    assert_eq!(guest.read(r::CONFIG + 4), 0);

    guest.negotiate(VERSION_1 | FEATURE);
    assert_eq!(guest.read(r::STATUS), s::ACKNOWLEDGE | s::DRIVER | s::FEATURES_OK);
    guest.set_up_queue(0, 64, 0x1_0000);
    guest.start();
    assert_eq!(guest.activations(), 1);
    assert!(!guest.needs_reset());

    guest.write(r::STATUS, 0);
    assert_eq!(guest.log.resets.load(Ordering::Relaxed), 1);
    assert_eq!(guest.read(r::STATUS), 0);
    guest.write(r::QUEUE_SELECT, 0);
    assert_eq!(guest.read(r::QUEUE_READY), 0);
}

#[test]
fn features_that_were_not_offered_are_not_accepted() {
    for features in [VERSION_1 | 1 << 40, FEATURE] {
        let mut guest = Guest::new();
        guest.negotiate(features);
        assert_eq!(guest.read(r::STATUS) & s::FEATURES_OK, 0);
        guest.start();
        assert!(guest.needs_reset());
        assert!(guest.cause().contains("features"), "{}", guest.cause());
        assert_eq!(guest.activations(), 0);
    }
}

#[test]
fn a_queue_does_not_move_once_it_is_ready() {
    let mut guest = Guest::new();
    guest.negotiate(VERSION_1);
    guest.set_up_queue(0, 64, 0x1_0000);
    let before = guest.transport.state().clone();
    guest.set_up_queue(0, 32, 0x8_0000);
    assert_eq!(*guest.transport.state(), before);
    guest.start();
    let before = guest.transport.state().clone();
    guest.write(r::QUEUE_READY, 0);
    guest.set_up_queue(1, 16, 0x8_0000);
    guest.write(r::QUEUE_SELECT, 0);
    guest.write(r::DRIVER_FEATURES, 0);
    let mut expected = before;
    expected.queue_select = 0;
    assert_eq!(*guest.transport.state(), expected);
}

#[test]
fn a_queue_that_is_nonsense_fails_the_device() {
    // Outside memory, not a power of two, too large, zero, misaligned.
    for (size, base) in [(64, 0xfff0_0000), (63, 0x1_0000), (128, 0x1_0000), (0, 0x1_0000), (64, 0x1_0001)] {
        let mut guest = Guest::new();
        guest.negotiate(VERSION_1);
        guest.set_up_queue(0, size, base);
        guest.start();
        assert!(guest.needs_reset(), "{size} at {base:#x}");
        assert!(guest.cause().contains("queue 0"), "{}", guest.cause());
        assert_eq!(guest.activations(), 0);
        guest.write(r::STATUS, 0);
        assert!(!guest.needs_reset());
    }
}

#[test]
fn taking_back_a_status_bit_fails_the_device() {
    let mut guest = Guest::new();
    guest.negotiate(VERSION_1);
    guest.write(r::STATUS, s::ACKNOWLEDGE);
    assert!(guest.needs_reset());
    assert!(guest.cause().contains("took back"), "{}", guest.cause());
}

#[test]
fn registers_are_four_bytes_wide() {
    let mut guest = Guest::new();
    let mut data = [0xff; 2];
    guest.transport.read(r::MAGIC, &mut data);
    assert_eq!(data, [0; 2]);
    guest.transport.write(r::STATUS, &[1]);
    assert_eq!(guest.read(r::STATUS), 0);
}

#[test]
fn state_survives_serialisation() {
    let mut guest = Guest::new();
    guest.negotiate(VERSION_1 | FEATURE);
    guest.set_up_queue(1, 16, 0x1_0000);
    let bytes = postcard::to_stdvec(guest.transport.state()).unwrap();
    assert_eq!(postcard::from_bytes::<super::Registers>(&bytes).unwrap(), *guest.transport.state());
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_panics(
        accesses in prop::collection::vec((0u64..0x140, prop_oneof![0u32..80, any::<u32>()], any::<bool>()), 0..200),
    ) {
        let mut guest = Guest::new();
        for (offset, value, write) in accesses {
            if write {
                guest.write(offset & !3, value);
            } else {
                guest.read(offset);
            }
        }
        prop_assert!(guest.activations() <= guest.log.resets.load(Ordering::Relaxed) + 1);
    }
}

/// A device whose driver runs, and which is at these places of its first queue.
fn active(next_avail: u16, next_used: u16) -> Guest {
    let mut guest = Guest::new();
    guest.negotiate(VERSION_1 | FEATURE);
    guest.set_up_queue(0, 64, 0x1_0000);
    guest.start();
    let mut queues = guest.log.queues.lock().unwrap();
    let queue = &mut queues.as_mut().unwrap()[0];
    queue.set_next_avail(next_avail);
    queue.set_next_used(next_used);
    drop(queues);
    guest
}

#[test]
fn a_device_goes_on_in_a_clone_where_it_was_saved() {
    let mut guest = active(7, 5);
    guest.transport.interrupt.used();
    let state = guest.transport.save().unwrap();
    let state = postcard::from_bytes(&postcard::to_stdvec(&state).unwrap()).unwrap();

    let mut clone = Guest::new();
    clone.transport.restore(state).unwrap();
    assert_eq!(clone.transport.state(), guest.transport.state());
    assert_eq!(clone.activations(), 1);
    let queues = clone.log.queues.lock().unwrap().take().unwrap();
    assert_eq!((queues[0].next_avail(), queues[0].next_used(), queues[0].ready()), (7, 5, true));
    assert!(!queues[1].ready());
    // What was not acknowledged is raised again, and what was made available is looked for.
    assert_eq!(clone.read(r::INTERRUPT_STATUS), 1);
    assert_eq!(clone.irq.read().unwrap(), 1);
    assert_eq!(clone.transport.queue_events()[0].read().unwrap(), 1);
}

#[test]
fn a_device_without_a_driver_is_saved_and_restored() {
    let mut guest = Guest::new();
    guest.write(r::STATUS, s::ACKNOWLEDGE);
    let state = guest.transport.save().unwrap();
    let mut clone = Guest::new();
    clone.transport.restore(state).unwrap();
    assert_eq!((clone.activations(), clone.read(r::STATUS)), (0, s::ACKNOWLEDGE));
}

#[test]
fn a_device_that_has_failed_or_has_requests_left_is_not_saved() {
    let mut failed = active(1, 1);
    failed.write(r::STATUS, s::ACKNOWLEDGE);
    assert!(failed.needs_reset());
    assert_eq!(failed.transport.save(), None);
    let mut busy = active(1, 1);
    *busy.log.queues.lock().unwrap() = None;
    assert_eq!(busy.transport.save(), None);
}

#[test]
fn a_state_of_another_kind_of_device_is_refused() {
    let change = |change: fn(&mut super::State)| {
        let mut state = active(0, 0).transport.save().unwrap();
        change(&mut state);
        let mut clone = Guest::new();
        let refused = clone.transport.restore(state).is_err();
        assert_eq!(clone.activations(), 0);
        refused
    };
    assert!(change(|state| _ = state.registers.queues.pop()));
    assert!(change(|state| _ = state.rings.pop()));
    assert!(change(|state| state.rings.clear()));
    assert!(change(|state| state.registers.driver_features |= 1 << 40));
    assert!(change(|state| state.registers.queues[0].descriptors = 1 << 40));
    assert!(change(|state| state.registers.queues[0].size = 63));
}
