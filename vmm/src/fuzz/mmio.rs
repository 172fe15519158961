//! The registers of one device, as a driver that follows no order writes them.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{input::Input, recorder};
use crate::virtio::mmio::register;

const MEMORY: usize = 0x4_0000;

/// What a driver writes, mostly; an input names any other offset too.
const OFTEN: [u64; 16] = [
    register::STATUS,
    register::DEVICE_FEATURES_SELECT,
    register::DRIVER_FEATURES_SELECT,
    register::DRIVER_FEATURES,
    register::QUEUE_SELECT,
    register::QUEUE_SIZE,
    register::QUEUE_READY,
    register::QUEUE_NOTIFY,
    register::INTERRUPT_ACK,
    register::QUEUE_DESCRIPTORS_LOW,
    register::QUEUE_DESCRIPTORS_HIGH,
    register::QUEUE_DRIVER_LOW,
    register::QUEUE_DRIVER_HIGH,
    register::QUEUE_DEVICE_LOW,
    register::QUEUE_DEVICE_HIGH,
    register::CONFIG,
];

/// Reads, writes, and bytes of memory, in any order.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
    let mut transport = recorder::transport(&memory);
    while !input.is_empty() {
        let step = input.u8();
        let offset = if step & 0x10 == 0 { OFTEN[usize::from(step & 0xf)] } else { input.u16().into() };
        match step >> 5 {
            // One byte is all that most registers need.
            0..=3 => transport.write(offset, &u32::from(input.u8()).to_le_bytes()),
            4 => transport.write(offset, &input.u32().to_le_bytes()),
            5 => {
                let count = usize::from(input.u8() % 9);
                transport.write(offset, input.bytes(count));
            }
            6 => {
                let mut data = [0xa5; 8];
                let length = usize::from(input.u8() % 9);
                transport.read(offset, &mut data[..length]);
                assert!(data[length..].iter().all(|byte| *byte == 0xa5));
            }
            _ => {
                let count = usize::from(input.u8() % 33);
                let _ = memory.write(input.bytes(count), GuestAddress(offset));
            }
        }
    }
    let mut magic = [0; 4];
    transport.read(register::MAGIC, &mut magic);
    assert_eq!(&magic, b"virt");
}
