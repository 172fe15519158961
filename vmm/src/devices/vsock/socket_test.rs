use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use proptest::{collection::vec, prelude::*};
use vm_memory::VolatileSlice;

use super::{MAX_IOVECS, receive, send};
use crate::virtio::buffers::copy_out;

proptest! {
    #[test]
    fn what_goes_through_a_socket_is_the_same(lengths in vec(1..50usize, 1..100)) {
        let expected: Vec<u8> = (0..lengths.iter().sum::<usize>()).map(|index| index as u8).collect();
        let mut bytes = expected.clone();
        let mut rest = &mut bytes[..];
        let mut slices = Vec::new();
        for length in lengths {
            let (slice, tail) = rest.split_at_mut(length);
            slices.push(VolatileSlice::from(slice));
            rest = tail;
        }
        // As far as one call takes it.
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let sent = send(&ours, &slices).unwrap();
        prop_assert!(sent == expected.len() || slices.len() > MAX_IOVECS);
        let mut arrived = vec![0; sent];
        theirs.read_exact(&mut arrived).unwrap();
        prop_assert_eq!(&arrived[..], &expected[..sent]);

        theirs.write_all(&expected.iter().map(|byte| !byte).collect::<Vec<_>>()).unwrap();
        let received = receive(&ours, &slices).unwrap();
        prop_assert!(received == expected.len() || slices.len() > MAX_IOVECS);
        let mut found = vec![0; expected.len()];
        copy_out(&slices, &mut found);
        for (found, expected) in found.iter().zip(&expected).take(received) {
            prop_assert_eq!(*found, !expected);
        }
    }
}
