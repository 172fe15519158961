use crate::virtio::{
    device::VirtioDevice,
    device_fixture::{BUFFERS, DeviceFixture},
    queue_fixture::Buffer,
};

use super::{MAX, Rng};

#[test]
fn buffers_are_filled_with_different_bytes() {
    let mut rng = Rng::default();
    let mut driver = DeviceFixture::activate(&mut rng);
    let first = driver.ask(0, &[], 64).unwrap();
    let second = driver.ask(0, &[], 64).unwrap();
    assert_eq!(first.len(), 64);
    assert_ne!(first, second);
    rng.reset();
}

#[test]
fn a_large_buffer_is_filled_in_part() {
    let mut rng = Rng::default();
    assert_eq!(DeviceFixture::activate(&mut rng).ask(0, &[], 4096).unwrap().len(), MAX);
    rng.reset();
}

#[test]
fn a_buffer_that_cannot_be_written_fails_the_device() {
    let mut rng = Rng::default();
    assert_eq!(DeviceFixture::activate(&mut rng).ask(0, b"read-only", 0), None);
    rng.reset();
}

#[test]
fn a_buffer_outside_memory_fails_the_device() {
    let mut rng = Rng::default();
    let mut driver = DeviceFixture::activate(&mut rng);
    driver.queues[0].offer(&[Buffer { address: u64::MAX - 8, length: 64, writable: true }]).unwrap();
    driver.notify(0);
    assert!(driver.interrupt.has_failed());
    rng.reset();
}

#[test]
fn an_available_index_that_runs_away_fails_the_device() {
    let mut rng = Rng::default();
    let mut driver = DeviceFixture::activate(&mut rng);
    driver.queues[0].set_avail_index(1000);
    driver.notify(0);
    assert!(driver.interrupt.has_failed());
    rng.reset();
}

#[test]
fn a_chain_that_loops_ends() {
    let mut rng = Rng::default();
    let mut driver = DeviceFixture::activate(&mut rng);
    let next_and_write = 3;
    driver.queues[0].write_descriptor(
        0,
        Buffer { address: BUFFERS, length: 8, writable: true },
        next_and_write,
        0,
    );
    driver.queues[0].publish(0);
    driver.notify(0);
    let used = driver.queues[0].used();
    assert!(
        driver.interrupt.has_failed() != used.is_some_and(|(_, length)| length as usize <= MAX),
        "{used:?}"
    );
    rng.reset();
}
