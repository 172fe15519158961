use std::sync::mpsc::channel;

use proptest::prelude::*;

use super::{
    ACK, BLOCK_SIZE, ERROR, Growth, MIXED, Mem, NACK, PLUG, PLUGGED, STATE, UNPLUG, UNPLUG_ALL, UNPLUGGED,
};
use crate::virtio::{device::VirtioDevice, device_fixture::DeviceFixture};

/// In the fixture's memory, so that unplugging has something to give back.
const START: u64 = BLOCK_SIZE;

fn request(kind: u16, address: u64, count: u16) -> Vec<u8> {
    let mut request = vec![0; 24];
    request[..2].copy_from_slice(&kind.to_le_bytes());
    request[8..16].copy_from_slice(&address.to_le_bytes());
    request[16..18].copy_from_slice(&count.to_le_bytes());
    request
}

struct Guest {
    growth: Growth,
    device: Mem,
    driver: DeviceFixture,
}

impl Guest {
    /// One that can grow by `blocks`.
    fn new(blocks: u64) -> Self {
        let growth =
            Growth::new(START..START + blocks * BLOCK_SIZE, blocks * BLOCK_SIZE, blocks * BLOCK_SIZE);
        let mut device = Mem::new(growth.clone());
        let driver = DeviceFixture::activate(&mut device);
        Self { growth, device, driver }
    }

    /// Type and state of the response.
    fn ask(&mut self, kind: u16, address: u64, count: u16) -> (u16, u16) {
        let reply = self.driver.ask(0, &request(kind, address, count), 10).unwrap();
        (u16::from_le_bytes([reply[0], reply[1]]), u16::from_le_bytes([reply[8], reply[9]]))
    }

    fn config(&self, field: u64) -> u64 {
        let mut bytes = [0; 8];
        self.device.read_config(field * 8, &mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.device.reset();
    }
}

#[test]
fn a_guest_grows_when_it_is_told_to() {
    let mut guest = Guest::new(1);
    assert_eq!(guest.ask(PLUG, START, 1).0, NACK, "not asked to yet");
    let (grown, is_grown) = channel();
    guest.growth.grow(Box::new(move || grown.send(()).unwrap()));
    assert!(is_grown.try_recv().is_err());
    assert_eq!((guest.config(5), guest.config(6)), (0, BLOCK_SIZE));
    assert_eq!(guest.ask(STATE, START, 1), (ACK, UNPLUGGED));
    assert_eq!(guest.ask(PLUG, START, 1).0, ACK);
    is_grown.recv().unwrap();
    assert_eq!(guest.config(5), BLOCK_SIZE);
    assert_eq!(guest.ask(STATE, START, 1), (ACK, PLUGGED));
    assert_eq!(guest.ask(PLUG, START, 1).0, ERROR, "plugged already");
    assert_eq!(guest.ask(UNPLUG, START, 1).0, ACK);
    assert_eq!(guest.ask(UNPLUG, START, 1).0, ERROR, "unplugged already");
    assert_eq!(guest.ask(UNPLUG_ALL, 0, 0).0, ACK);
}

#[test]
fn a_guest_without_a_driver_or_anything_to_plug_is_grown() {
    for (size, active) in [(0, true), (BLOCK_SIZE, false)] {
        let growth = Growth::new(START..START + BLOCK_SIZE, BLOCK_SIZE, size);
        let mut device = Mem::new(growth.clone());
        let _driver = active.then(|| DeviceFixture::activate(&mut device));
        let (grown, is_grown) = channel();
        growth.grow(Box::new(move || grown.send(()).unwrap()));
        is_grown.try_recv().unwrap();
        device.reset();
    }
}

#[test]
fn blocks_in_different_states_are_mixed() {
    let mut guest = Guest::new(2);
    guest.growth.grow(Box::new(|| ()));
    assert_eq!(guest.ask(PLUG, START + BLOCK_SIZE, 1).0, ACK);
    assert_eq!(guest.ask(STATE, START, 2), (ACK, MIXED));
    assert_eq!(guest.ask(PLUG, START, 2).0, ERROR);
    assert_eq!(guest.ask(UNPLUG, START, 2).0, ERROR);
}

#[test]
fn blocks_outside_the_region_are_an_error() {
    let mut guest = Guest::new(1);
    guest.growth.grow(Box::new(|| ()));
    for (address, count) in
        [(0, 1), (START + 1, 1), (START, 2), (START, 0), (START + BLOCK_SIZE, 1), (u64::MAX, u16::MAX)]
    {
        assert_eq!(guest.ask(PLUG, address, count).0, ERROR, "{count} at {address:#x}");
    }
    assert_eq!(guest.ask(77, START, 1).0, ERROR);
}

#[test]
fn a_short_request_fails_the_device() {
    let mut guest = Guest::new(1);
    assert_eq!(guest.driver.ask(0, &[0; 8], 10), None);
}

#[test]
fn a_guest_shrinks_and_grows_again() {
    let mut guest = Guest::new(2);
    guest.growth.grow(Box::new(|| ()));
    assert_eq!(guest.ask(PLUG, START, 2).0, ACK);
    let resize = |guest: &Guest, blocks| {
        let (reached, is_reached) = channel();
        let on_reached = Box::new(move || reached.send(()).unwrap());
        guest.growth.resize(2 * BLOCK_SIZE, blocks * BLOCK_SIZE, on_reached).unwrap();
        is_reached
    };
    let is_reached = resize(&guest, 1);
    assert!(is_reached.try_recv().is_err());
    assert_eq!(guest.config(6), BLOCK_SIZE);
    assert_eq!(guest.ask(UNPLUG, START, 1).0, ACK);
    is_reached.recv().unwrap();
    assert_eq!((guest.config(5), guest.growth.plugged()), (BLOCK_SIZE, BLOCK_SIZE));
    assert_eq!(guest.ask(PLUG, START, 1).0, NACK);
    resize(&guest, 1).recv().unwrap();
    // The guest has not given anything back when it is asked to have all again.
    let superseded = resize(&guest, 0);
    resize(&guest, 1).recv().unwrap();
    assert!(superseded.recv().is_err(), "nobody waits for it any more");
}

#[test]
fn only_the_usable_part_of_the_region_is_plugged() {
    let growth = Growth::new(START..START + 2 * BLOCK_SIZE, BLOCK_SIZE, 0);
    let mut device = Mem::new(growth.clone());
    assert!(growth.resize(2 * BLOCK_SIZE, BLOCK_SIZE, Box::new(|| ())).is_err(), "no driver");
    let driver = DeviceFixture::activate(&mut device);
    let mut guest = Guest { growth, device, driver };
    guest.growth.resize(BLOCK_SIZE, 2 * BLOCK_SIZE, Box::new(|| ())).unwrap();
    assert_eq!((guest.config(3), guest.config(4), guest.config(6)), (2 * BLOCK_SIZE, BLOCK_SIZE, BLOCK_SIZE));
    assert_eq!(guest.ask(PLUG, START + BLOCK_SIZE, 1).0, ERROR);
    guest.growth.resize(2 * BLOCK_SIZE, 2 * BLOCK_SIZE, Box::new(|| ())).unwrap();
    assert_eq!(guest.ask(PLUG, START, 2).0, ACK);
}

proptest! {
    #[test]
    fn no_more_is_plugged_than_was_asked_for(
        requests in prop::collection::vec((0u16..5, 0u64..6, 0u16..6), 0..40),
        usable in 0u64..=4,
    ) {
        let growth = Growth::new(START..START + 4 * BLOCK_SIZE, usable * BLOCK_SIZE, 0);
        growth.lock().state.requested = 3 * BLOCK_SIZE;
        let memory = vm_memory::GuestMemoryMmap::from_ranges(&[(vm_memory::GuestAddress(0), 5 << 21)]).unwrap();
        for (kind, block, count) in requests {
            let request: [u8; 24] = request(kind, START + block * BLOCK_SIZE, count).try_into().unwrap();
            growth.carry_out(&memory, &request);
            let state = growth.state();
            prop_assert!(state.plugged <= usable.min(3) * BLOCK_SIZE);
            let blocks = state.blocks.iter().filter(|plugged| **plugged).count() as u64;
            prop_assert_eq!(state.plugged, blocks * BLOCK_SIZE);
        }
    }
}
