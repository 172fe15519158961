use proptest::{collection::vec, prelude::*};
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::QueueOwnedT;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::virtio::queue_fixture::{Buffer, QueueFixture};

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap()
}

/// Collects the chain at the head of a queue that `fill` has filled.
fn collected(access: Access, fill: impl FnOnce(&mut QueueFixture)) -> Result<Vec<usize>, ChainError> {
    let memory = memory();
    let mut fixture = QueueFixture::new(&memory, 0x1000, 256);
    fill(&mut fixture);
    let chain = fixture.queue().iter(&memory).unwrap().next().unwrap();
    let mut slices = Vec::new();
    collect(&memory, chain, access, &mut slices)?;
    Ok(slices.iter().map(VolatileSlice::len).collect())
}

fn buffer(address: u64, length: u32) -> Buffer {
    Buffer { address, length, writable: false }
}

#[test]
fn empty_buffers_are_passed_over() {
    let chain = [buffer(0x8000, 1), buffer(0x1_0000, 0), buffer(0xfffe, 2)];
    let lengths = collected(Access::Readable, |fixture| _ = fixture.offer(&chain)).unwrap();
    assert_eq!(lengths, [1, 2]);
}

#[test]
fn buffers_outside_memory_are_refused() {
    for (address, length) in [(0xffff, 2), (0x1_0000, 1), (u64::MAX, 1), (0x8000, u32::MAX)] {
        let error =
            collected(Access::Readable, |fixture| _ = fixture.offer(&[buffer(address, length)])).unwrap_err();
        assert!(matches!(error, ChainError::Outside { .. }), "{error}");
    }
}

#[test]
fn buffers_of_the_wrong_direction_are_refused() {
    let readable = [buffer(0x8000, 1)];
    let writable = [Buffer { writable: true, ..readable[0] }];
    for (access, chain) in [(Access::Writable, readable), (Access::Readable, writable)] {
        let error = collected(access, |fixture| _ = fixture.offer(&chain)).unwrap_err();
        assert!(matches!(error, ChainError::WrongAccess(_)), "{error}");
    }
}

#[test]
fn a_loop_of_descriptors_is_refused() {
    let error = collected(Access::Readable, |fixture| {
        fixture.write_descriptor(0, buffer(0x8000, 1), VRING_DESC_F_NEXT as u16, 1);
        fixture.write_descriptor(1, buffer(0x8000, 1), VRING_DESC_F_NEXT as u16, 0);
        fixture.publish(0);
    })
    .unwrap_err();
    assert!(matches!(error, ChainError::TooManyDescriptors(_)), "{error}");
}

#[test]
fn a_head_outside_the_table_is_an_empty_chain() {
    let lengths = collected(Access::Writable, |fixture| {
        fixture.write_descriptor(0, buffer(0x8000, 1), VRING_DESC_F_WRITE as u16, 0);
        fixture.publish(256);
    });
    assert!(lengths.unwrap().is_empty());
}

proptest! {
    #[test]
    fn cutting_slices_is_cutting_bytes(
        lengths in vec(1..50usize, 1..100),
        from in 0..2000usize,
        count in 0..2000usize,
    ) {
        let mut bytes: Vec<u8> = (0..lengths.iter().sum::<usize>()).map(|index| index as u8).collect();
        let expected: Vec<u8> = bytes.iter().copied().skip(from).take(count).collect();
        let mut rest = &mut bytes[..];
        let mut slices = Vec::new();
        for length in lengths {
            let (slice, tail) = rest.split_at_mut(length);
            slices.push(VolatileSlice::from(slice));
            rest = tail;
        }
        let mut cut = skip(&mut slices, from).to_vec();
        truncate(&mut cut, count);
        let mut found = vec![0; expected.len() + 1];
        prop_assert_eq!(copy_out(&cut, &mut found), expected.len());
        prop_assert_eq!(&found[..expected.len()], &expected[..]);
    }
}

/// Descriptors as a hostile driver may write them: near the tables' places, and with all flags.
fn descriptors(count: usize) -> impl Strategy<Value = Vec<(u64, u32, u16, u16)>> {
    let address = prop_oneof![0x1000_u64..0x1100, 0x8000_u64..0x8100, any::<u64>()];
    let length = prop_oneof![(0_u32..20).prop_map(|count| count * 16), any::<u32>()];
    vec((address, length, 0_u16..8, 0_u16..20), count)
}

proptest! {
    #[test]
    fn a_chain_is_walked_as_the_library_walks_it(
        direct in descriptors(16), indirect in descriptors(16), size in 0_u32..5, head in 0_u16..20,
    ) {
        let memory = memory();
        let size = 1 << size;
        for (table, descriptors) in [(0x1000, direct), (0x8000, indirect)] {
            for (at, (address, length, flags, next)) in (table..).step_by(16).zip(descriptors) {
                let descriptor = Descriptor::new(address, length, flags, next);
                memory.write_obj(descriptor, GuestAddress(at)).unwrap();
            }
        }
        let mut queue = Queue::new(256).unwrap();
        queue.set_size(size);
        queue.try_set_desc_table_address(GuestAddress(0x1000)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(0x5000)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(0x6000)).unwrap();
        queue.set_ready(true);
        memory.write_obj(head, GuestAddress(0x5004)).unwrap();
        memory.write_obj(1_u16, GuestAddress(0x5002)).unwrap();
        let Some(chain) = queue.iter(&memory).unwrap().next() else { return Ok(()) };
        let of = |descriptor: Descriptor| (descriptor.addr(), descriptor.len(), descriptor.flags());
        let wanted: Vec<_> = chain.map(of).collect();
        let found: Vec<_> = Descriptors::of(&memory, &queue, head).unwrap().map(of).collect();
        prop_assert_eq!(found, wanted);
    }
}
