//! A guest that breaks the rules has a device that fails, and memory of its own that it did not offer stays as it is.

use proptest::{collection::vec, prelude::*};
use virtio_bindings::{virtio_net::VIRTIO_NET_F_MRG_RXBUF, virtio_ring::VIRTIO_RING_F_EVENT_IDX};
use vm_memory::{Bytes, GuestAddress};

use super::{HEADER_SIZE, bit, fixture::*};
use crate::virtio::queue_fixture::{Buffer, QueueFixture};

const FEATURES: u64 = bit(VIRTIO_NET_F_MRG_RXBUF) | bit(VIRTIO_RING_F_EVENT_IDX);

#[derive(Clone, Copy, Debug)]
enum Queue {
    Rx,
    Tx,
    Control,
}

fn queue<'b>(bench: &'b mut Bench<'_>, queue: Queue) -> &'b mut QueueFixture {
    match queue {
        Queue::Rx => &mut bench.rx,
        Queue::Tx => &mut bench.tx,
        Queue::Control => &mut bench.control,
    }
}

#[test]
fn broken_chains_fail_the_device() {
    let buffer = |address, length, writable| Buffer { address, length, writable };
    let cases = [
        (Queue::Tx, buffer(TX_BUFFERS, HEADER_SIZE as u32 - 1, false), "11 bytes for a packet of 12"),
        (Queue::Tx, buffer(TX_BUFFERS, 100, true), "writable where the device reads"),
        (Queue::Tx, buffer(MEMORY as u64 - 1, 100, false), "outside guest memory"),
        (Queue::Rx, buffer(RX_BUFFERS, HEADER_SIZE as u32 - 1, true), "11 bytes for a packet of 12"),
        (Queue::Rx, buffer(RX_BUFFERS, 100, false), "not writable where the device writes"),
        (Queue::Rx, buffer(u64::MAX - 10, 100, true), "outside guest memory"),
    ];
    for (which, buffer, expected) in cases {
        let machine = Machine::new();
        let mut bench = Bench::new(&machine, FEATURES);
        queue(&mut bench, which).offer(&[buffer]).unwrap();
        let error = bench.run().unwrap_err().to_string();
        assert!(error.contains(expected), "{which:?}: {error}");
        assert_eq!(bench.arrived(), None);
    }
}

#[test]
fn rings_that_run_away_fail_the_device() {
    for which in [Queue::Rx, Queue::Tx, Queue::Control] {
        let machine = Machine::new();
        let mut bench = Bench::new(&machine, FEATURES);
        queue(&mut bench, which).set_avail_index(1000);
        let error = bench.run().unwrap_err().to_string();
        assert!(error.contains("available ring"), "{which:?}: {error}");
    }
}

#[test]
fn a_command_without_room_for_an_answer_gets_none() {
    let machine = Machine::new();
    let mut bench = Bench::new(&machine, FEATURES);
    bench.control.offer(&[Buffer { address: CONTROL_BUFFERS, length: 4, writable: false }]).unwrap();
    bench.run().unwrap();
    assert_eq!(bench.control.used().map(|(_, written)| written), Some(0));
}

#[test]
fn buffers_of_single_bytes_do_not_stall_those_that_follow() {
    let machine = Machine::new();
    let mut bench = Bench::new(&machine, FEATURES);
    // 15 chains of 17 buffers, all of one byte.
    for chain in 0..15 {
        let byte = |index| Buffer { address: RX_BUFFERS + chain * 17 + index, length: 1, writable: true };
        bench.rx.offer(&(0..17).map(byte).collect::<Vec<_>>()).unwrap();
    }
    bench.send(&pattern(0, 200));
    bench.run().unwrap();
    // A packet of 212 bytes takes 13 of them.
    let used: Vec<_> = std::iter::from_fn(|| bench.rx.used()).map(|(_, written)| written).collect();
    assert_eq!(used.len(), 13);
    assert_eq!(used.iter().sum::<u32>(), 212);
    let mut packet = [0; 212];
    machine.memory.read_slice(&mut packet, GuestAddress(RX_BUFFERS)).unwrap();
    assert_eq!(packet[10..12], [13, 0]);
    assert_eq!(packet[12..], pattern(0, 200));
}

proptest! {
    #[test]
    fn no_descriptor_hurts(
        descriptors in vec((any::<u64>(), any::<u32>(), 0..8u16, 0..300u16), 1..60),
        heads in vec(0..300u16, 1..60),
        jump in any::<u16>(),
        which in prop_oneof![Just(Queue::Rx), Just(Queue::Tx), Just(Queue::Control)],
        features in prop_oneof![Just(FEATURES), Just(0)],
    ) {
        let machine = Machine::new();
        let mut bench = Bench::new(&machine, features);
        let fixture = queue(&mut bench, which);
        for (index, (address, length, flags, next)) in descriptors.into_iter().enumerate() {
            // Mostly addresses in memory.
            let address = if length % 4 > 0 { address % MEMORY as u64 } else { address };
            let length = if flags % 4 > 0 { length % 0x1_0000 } else { length };
            fixture.write_descriptor(index as u16, Buffer { address, length, writable: false }, flags, next);
        }
        for head in heads {
            fixture.publish(head);
        }
        if jump % 4 == 0 {
            fixture.set_avail_index(jump);
        }
        for length in [60, 1500, 60_000] {
            bench.send(&pattern(0, length));
        }
        // Either way it returns.
        let _ = bench.run();
    }

    /// Whatever the buffers are and how they overlap: what is written is in them.
    #[test]
    fn nothing_is_written_outside_the_buffers(
        chains in vec(vec((0..0x8000u64, 0..3000u32), 1..6), 1..30),
        packets in vec(0..20_000usize, 1..6),
        mergeable in any::<bool>(),
    ) {
        let machine = Machine::new();
        let features = if mergeable { FEATURES } else { 0 };
        let mut bench = Bench::new(&machine, features);
        let area = 0x1_0000;
        machine.memory.write_slice(&vec![0xa5; area], GuestAddress(RX_BUFFERS)).unwrap();
        let mut offered = vec![false; area];
        for chain in chains {
            let buffers: Vec<_> = chain
                .iter()
                .map(|(place, length)| Buffer { address: RX_BUFFERS + place, length: *length, writable: true })
                .collect();
            if bench.rx.offer(&buffers).is_some() {
                for (place, length) in chain {
                    offered[place as usize..place as usize + length as usize].fill(true);
                }
            }
        }
        for length in packets {
            bench.send(&vec![0x5a; length]);
        }
        let _ = bench.run();
        let mut after = vec![0; area];
        machine.memory.read_slice(&mut after, GuestAddress(RX_BUFFERS)).unwrap();
        prop_assert!(after.iter().zip(offered).all(|(byte, offered)| offered || *byte == 0xa5));
    }
}
