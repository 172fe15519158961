//! What the device does for a driver that keeps to the rules.

use proptest::{collection::vec, prelude::*};
use stockade_protocol::vmm;
use virtio_bindings::{
    virtio_net::{VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF},
    virtio_ring::VIRTIO_RING_F_EVENT_IDX,
};

use super::{HEADER_SIZE, Nic, bit, fixture::*};
use crate::virtio::device::VirtioDevice;

const MERGEABLE: u64 = bit(VIRTIO_NET_F_MRG_RXBUF) | bit(VIRTIO_RING_F_EVENT_IDX);
const PLAIN: u64 = bit(VIRTIO_RING_F_EVENT_IDX);

#[test]
fn configuration_space_tells_address_link_pairs_and_mtu() {
    let taps = [fake_tap(), fake_tap(), fake_tap()].map(|(_, tap)| tap);
    let nic = Nic::over(vmm::Nic { mac: [2, 3, 4, 5, 6, 7], mtu: 1450 }, taps.into(), true);
    let mut space = [0; 16];
    nic.read_config(0, &mut space);
    assert_eq!(space[..6], [2, 3, 4, 5, 6, 7]);
    assert_eq!(space[6..12], [1, 0, 3, 0, 0xaa, 5]);
    assert_eq!(space[12..], [0; 4]);
    assert_eq!(nic.queue_max_sizes(), [256, 256, 256, 256, 256, 256, 16]);
    assert_ne!(nic.features() & bit(VIRTIO_NET_F_MQ), 0);
    assert!(nic.link.take_down());
    nic.read_config(6, &mut space[..2]);
    assert_eq!(space[..2], [0, 0]);
    assert!(!nic.link.is_up());
}

#[test]
fn one_tap_is_one_pair_without_a_control_queue() {
    let nic = Nic::over(vmm::Nic { mac: [2; 6], mtu: 1500 }, [fake_tap().1].into(), false);
    assert_eq!(nic.queue_max_sizes(), [256, 256]);
    let several = bit(VIRTIO_NET_F_MQ) | bit(VIRTIO_NET_F_CTRL_VQ);
    assert_eq!(nic.features() & (several | super::UDP_SEGMENTATION), 0);
}

#[test]
fn packets_to_the_guest_take_the_buffers_that_they_need() {
    let machine = Machine::new();
    let mut bench = Bench::new(&machine, MERGEABLE);
    for _ in 0..10 {
        bench.offer(1000);
    }
    let packets = [pattern(1, 60), pattern(2, 988), pattern(3, 989), pattern(4, 4000), pattern(5, 1)];
    for packet in &packets {
        bench.send(packet);
    }
    bench.run().unwrap();
    for (packet, count) in packets.into_iter().zip([1, 1, 2, 5, 1]) {
        assert_eq!(bench.received(), Some((count, packet)));
    }
    assert_eq!(bench.received(), None);
}

#[test]
fn a_packet_waits_for_the_buffers_that_it_lacks() {
    let machine = Machine::new();
    let mut bench = Bench::new(&machine, MERGEABLE);
    let (long, short) = (pattern(7, 60_000), pattern(9, 100));
    bench.send(&long);
    bench.send(&short);
    bench.offer(1500);
    bench.run().unwrap();
    for _ in 0..39 {
        assert_eq!(bench.received(), None);
        bench.offer(1500);
        bench.run().unwrap();
    }
    bench.offer(1500);
    bench.run().unwrap();
    assert_eq!(bench.received(), Some((41, long)));
    assert_eq!(bench.received(), None);
    bench.offer(1500);
    bench.run().unwrap();
    assert_eq!(bench.received(), Some((1, short)));
}

#[test]
fn without_buffers_packets_stay_in_the_tap() {
    let machine = Machine::new();
    let mut bench = Bench::new(&machine, MERGEABLE);
    for seed in 0..20 {
        bench.send(&pattern(seed, 200));
    }
    bench.run().unwrap();
    assert_eq!(machine.irq.read().ok(), None);
    for seed in 0..20 {
        bench.offer(1500);
        bench.run().unwrap();
        assert_eq!(bench.received(), Some((1, pattern(seed, 200))));
    }
}

#[test]
fn a_packet_that_cannot_fit_is_lost_and_the_next_is_not() {
    for (features, buffers, length) in [(PLAIN, 3, 1500), (MERGEABLE, QUEUE_SIZE, 100)] {
        let machine = Machine::new();
        let mut bench = Bench::new(&machine, features);
        for _ in 0..buffers {
            bench.offer(length);
        }
        bench.send(&pattern(0, 30_000));
        bench.send(&pattern(1, 80));
        bench.run().unwrap();
        assert_eq!(bench.received(), Some((1, pattern(1, 80))));
    }
}

#[test]
fn the_longest_packet_passes_in_both_directions() {
    let machine = Machine::new();
    let mut bench = Bench::new(&machine, MERGEABLE);
    for _ in 0..50 {
        bench.offer(1536);
    }
    let longest = pattern(3, (64 << 10) + 18);
    bench.send(&longest);
    bench.run().unwrap();
    assert_eq!(bench.received(), Some((43, longest.clone())));
    let mut packet = vec![0; HEADER_SIZE];
    packet.extend(longest);
    bench.transmit(&packet, &[HEADER_SIZE, 4000]);
    bench.run().unwrap();
    assert_eq!(bench.arrived(), Some(packet.clone()));
    packet.push(0);
    bench.transmit(&packet, &[]);
    bench.run().unwrap();
    assert_eq!(bench.arrived(), None);
    assert_eq!(bench.tx.used().map(|(_, length)| length), Some(0));
}

#[test]
fn interrupts_come_when_the_driver_wants_them() {
    let machine = Machine::new();
    let mut bench = Bench::new(&machine, MERGEABLE);
    bench.offer(1500);
    bench.offer(1500);
    bench.send(&[1; 60]);
    bench.run().unwrap();
    assert_eq!(machine.irq.read().ok(), Some(1));
    // The driver has not looked since: it wants none.
    bench.send(&[2; 60]);
    bench.run().unwrap();
    assert_eq!(machine.irq.read().ok(), None);
    while bench.received().is_some() {}
    bench.offer(1500);
    bench.send(&[3; 60]);
    bench.run().unwrap();
    assert_eq!(machine.irq.read().ok(), Some(1));
}

#[test]
fn the_interface_goes_down_once_its_tap_has_gone() {
    let machine = Machine::new();
    let mut bench = Bench::new(&machine, MERGEABLE);
    bench.offer(1500);
    bench.run().unwrap();
    let generation = machine.interrupt.generation();
    drop(bench.host.take());
    bench.run().unwrap();
    assert!(!machine.link.is_up());
    assert_ne!(machine.interrupt.generation(), generation);
    assert_eq!(machine.irq.read().ok(), Some(1));
    // A guest that sends on is not told again, and gets its buffers back.
    bench.transmit(&[0; 100], &[]);
    bench.run().unwrap();
    assert!(bench.tx.used().is_some());
    assert_eq!(machine.interrupt.generation(), generation + 1);
}

#[test]
fn a_device_that_has_failed_does_nothing() {
    let machine = Machine::new();
    let mut bench = Bench::new(&machine, MERGEABLE);
    machine.interrupt.fail(&"another pair");
    bench.offer(1500);
    bench.send(&[1; 60]);
    bench.transmit(&[0; 100], &[]);
    bench.run().unwrap();
    assert_eq!((bench.received(), bench.arrived()), (None, None));
}

#[test]
fn commands_other_than_for_pairs_that_there_are_are_refused() {
    let machine = Machine::new();
    let mut bench = Bench::new(&machine, MERGEABLE);
    // Both queues are attached, as the command says: nothing to do, which works with stand-ins too.
    assert_eq!(bench.command(&[4, 0, 2, 0]), 0);
    for command in
        [&[4, 0, 0, 0][..], &[4, 0, 3, 0], &[4, 0, 2, 1], &[4, 1, 2, 0], &[3, 0, 2, 0], &[4, 0, 2], &[4]]
    {
        assert_eq!(bench.command(command), 1, "{command:?}");
    }
    assert!(!machine.interrupt.has_failed());
}

proptest! {
    #[test]
    fn packets_from_the_guest_arrive_however_they_are_laid_out(
        length in 0..3000usize,
        cuts in vec(1..200usize, 0..20),
    ) {
        let machine = Machine::new();
        let mut bench = Bench::new(&machine, MERGEABLE);
        let packet = pattern(length, HEADER_SIZE + length);
        bench.transmit(&packet, &cuts);
        bench.run().unwrap();
        prop_assert_eq!(bench.arrived(), Some(packet));
        prop_assert!(bench.tx.used().is_some());
    }

    #[test]
    fn packets_to_the_guest_arrive_whatever_the_buffers(
        packets in vec(0..9000usize, 1..12),
        // Of the smallest, a ring holds the longest packet.
        lengths in vec(40..3000u32, 1..20),
    ) {
        let machine = Machine::new();
        let mut bench = Bench::new(&machine, MERGEABLE);
        let mut lengths = lengths.iter().cycle();
        for (seed, length) in packets.iter().enumerate() {
            bench.send(&pattern(seed, *length));
        }
        let mut arrived = 0;
        while arrived < packets.len() {
            if bench.rx.next_head().is_some() {
                bench.offer(*lengths.next().unwrap());
            }
            bench.run().unwrap();
            while let Some((_, packet)) = bench.received() {
                prop_assert_eq!(&packet, &pattern(arrived, packets[arrived]));
                arrived += 1;
            }
        }
    }
}
