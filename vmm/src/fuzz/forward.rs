//! The file system device between a hostile driver and a hostile file server.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{driver, input::Input};
use crate::{
    devices::fs::{
        channel,
        forward::{self, Forwarder},
    },
    virtio::{
        interrupt::{Interrupt, Line},
        queue_fixture::QueueFixture,
    },
};

const QUEUES: u64 = 0x1000;
const BUFFERS: u64 = 0x1_0000;
const MEMORY: usize = 0x4_0000;

/// Entries of both queues.
const SIZE: u16 = 32;

/// Chains of both queues, and notices of the server.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
    let mut queues =
        [0, 1].map(|index| QueueFixture::new(&memory, QUEUES + index * QueueFixture::FOOTPRINT, SIZE));
    let event = || EventFd::new(EFD_NONBLOCK).unwrap();
    let events = [event(), event()];
    let stop = event();
    let interrupt = Interrupt::new(Line::Event(event()));
    let (mut device, server) = channel::new().unwrap();
    let watched: Vec<_> = events.iter().map(|event| event.try_clone().unwrap()).collect();
    let epoll = forward::watch(&watched, &device, &stop).unwrap();
    let device_queues = queues.iter().map(QueueFixture::queue).collect();
    let mut forwarder = Forwarder::new(&memory, device_queues, watched, &interrupt, &mut device);
    // A request's header that is right, for the input to build upon.
    let header = [[40u8, 0, 0, 0], [1, 0, 0, 0], [7, 0, 0, 0], [0; 4], [1, 0, 0, 0]].concat();
    memory.write_slice(&header, GuestAddress(BUFFERS)).unwrap();
    while !input.is_empty() {
        let step = input.u8();
        let index = usize::from(step & 1);
        match step >> 1 & 3 {
            0 => _ = server.reply(usize::from(input.u8()), input.u32() as usize),
            1 => _ = server.malformed(usize::from(input.u8()) % channel::SLOTS, "odd\n"),
            _ if step & 0x80 != 0 => _ = server.has_reset(),
            _ => driver::provoke(&memory, &mut queues[index], BUFFERS, &mut input),
        }
        // The round does not wait.
        events[index].write(1).unwrap();
        if forwarder.round(&epoll).is_err() {
            return;
        }
        queues[index].pass_over_used();
    }
}
