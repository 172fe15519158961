//! The devices that answer chain by chain: entropy, balloon, memory.

use std::sync::Arc;

use virtio_queue::QueueT;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{driver, input::Input};
use crate::{
    devices::{balloon, mem, rng},
    memory::HUGE_PAGE_SIZE,
    virtio::{
        device::Activation,
        interrupt::{Interrupt, Line},
        queue_fixture::QueueFixture,
        worker::{Handler, Work},
    },
};

const QUEUES: u64 = 0x1000;
const BUFFERS: u64 = 0x1_0000;
const MEMORY: usize = 0x4_0000;

/// What the memory device can add.
const REGION: u64 = 64 << 20;
const REGION_BLOCKS: u64 = 4;

/// Entries of each queue.
const SIZE: u16 = 16;

/// One of the devices, and its queues.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    match input.u8() % 3 {
        0 => drive(rng::Source, 1, &mut input),
        1 => drive(balloon::Host::default(), 3, &mut input),
        _ => {
            let size = REGION_BLOCKS * HUGE_PAGE_SIZE;
            let growth = mem::Growth::new(REGION..REGION + size, size / 2, size / 2);
            growth.connect(Arc::new(Interrupt::new(Line::Event(event()))));
            growth.grow(Box::new(|| {}));
            drive(growth.clone(), 1, &mut input);
            assert!(growth.plugged() <= size / 2, "more than is usable is plugged");
        }
    }
}

/// Lets the input drive a device's queues until it ends or the device fails.
pub fn drive(handler: impl Handler, queues: usize, input: &mut Input<'_>) {
    let region = (GuestAddress(REGION), (REGION_BLOCKS * HUGE_PAGE_SIZE) as usize);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY), region]).unwrap();
    let bases = (0..queues as u64).map(|index| QUEUES + index * QueueFixture::FOOTPRINT);
    let mut fixtures: Vec<_> = bases.map(|base| QueueFixture::new(&memory, base, SIZE)).collect();
    let event_idx = input.u8() & 1 != 0;
    let activation = Activation {
        memory: memory.clone(),
        features: 0,
        queues: fixtures
            .iter()
            .map(|fixture| {
                let mut queue = fixture.queue();
                queue.set_event_idx(event_idx);
                queue
            })
            .collect(),
        queue_events: fixtures.iter().map(|_| event()).collect(),
        interrupt: Arc::new(Interrupt::new(Line::Event(event()))),
    };
    let mut work = Work::new(activation, handler);
    while !input.is_empty() {
        let index = usize::from(input.u8()) % queues;
        driver::provoke(&memory, &mut fixtures[index], BUFFERS, input);
        if work.work(index).is_err() {
            return;
        }
        fixtures[index].pass_over_used();
    }
}

fn event() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}
