use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Balloon, REPORTS, take};
use crate::virtio::{
    device::VirtioDevice,
    device_fixture::{BUFFERS, DeviceFixture, MEMORY},
    queue_fixture::Buffer,
};

/// Where reported pages are, which hold ones.
const PAGES: u64 = BUFFERS + 0x10_0000;

fn fill(memory: &GuestMemoryMmap, start: u64, length: usize) {
    memory.write_slice(&vec![1; length], GuestAddress(start)).unwrap();
}

fn bytes(memory: &GuestMemoryMmap, start: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    memory.read_slice(&mut bytes, GuestAddress(start)).unwrap();
    bytes
}

fn report(driver: &mut DeviceFixture, queue: usize, buffers: &[(u64, u32)]) {
    let buffers: Vec<_> = buffers
        .iter()
        .map(|(address, length)| Buffer { address: *address, length: *length, writable: true })
        .collect();
    driver.queues[queue].offer(&buffers).unwrap();
    driver.notify(queue);
}

#[test]
fn reported_pages_are_the_hosts_again_and_no_others() {
    let mut balloon = Balloon::default();
    let mut driver = DeviceFixture::activate(&mut balloon);
    fill(&driver.memory, PAGES, 5 * 4096);
    // Of what is no whole page, nothing is taken.
    report(&mut driver, REPORTS, &[(PAGES, 4096), (PAGES + 2 * 4096 - 1, 4096 + 2), (PAGES + 4 * 4096, 100)]);
    assert!(!driver.interrupt.has_failed());
    assert!(driver.queues[REPORTS].used().is_some_and(|(_, written)| written == 0));
    let first: Vec<u8> = (0..5).map(|page| bytes(&driver.memory, PAGES + page * 4096, 1)[0]).collect();
    assert_eq!(first, [0, 1, 0, 1, 1]);
    balloon.reset();
}

#[test]
fn a_balloon_that_nobody_asked_for_takes_nothing() {
    let mut balloon = Balloon::default();
    let mut driver = DeviceFixture::activate(&mut balloon);
    fill(&driver.memory, PAGES, 4096);
    report(&mut driver, 0, &[(PAGES, 4096)]);
    assert_eq!(bytes(&driver.memory, PAGES, 1), [1]);
    assert!(!driver.interrupt.has_failed());
    balloon.reset();
}

#[test]
fn pages_outside_memory_fail_the_device() {
    for (address, length) in [(MEMORY as u64, 4096), (MEMORY as u64 - 4096, 8192), (u64::MAX - 100, 4096)] {
        let mut balloon = Balloon::default();
        let mut driver = DeviceFixture::activate(&mut balloon);
        report(&mut driver, REPORTS, &[(address, length)]);
        assert!(driver.interrupt.has_failed(), "{length} at {address:#x}");
        balloon.reset();
    }
}

proptest! {
    #[test]
    fn only_whole_pages_inside_the_range_are_taken(start in 0u64..0x9000, length in 0u64..0x9000) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x8000)]).unwrap();
        fill(&memory, 0, 0x8000);
        let taken = take(&memory, GuestAddress(start), length);
        let bytes = bytes(&memory, 0, 0x8000);
        for (page, content) in bytes.chunks(4096).enumerate() {
            let page = page as u64 * 4096;
            let is_inside = start <= page && page + 4096 <= start + length;
            prop_assert!(content.iter().all(|byte| *byte == u8::from(!(is_inside && taken.is_ok()))));
        }
    }

    #[test]
    fn no_range_can_do_harm(start in any::<u64>(), length in any::<u64>()) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x8000)]).unwrap();
        if take(&memory, GuestAddress(start), length).is_ok() && length >= 8192 {
            prop_assert!(start + length <= 0x8000 + 4095);
        }
    }
}
