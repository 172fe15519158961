use proptest::prelude::*;
use vm_memory::ByteValued;

use super::{
    super::{
        abi::{InHeader, ROOT_NODE},
        fixture::Guest,
    },
    Choices, run,
};

/// `PROPTEST_CASES` makes it run longer.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_request_leaves_the_tree_or_a_descriptor(seed in any::<u64>(), host_locks in any::<bool>()) {
        run(Choices::Seed(seed | 1), host_locks);
    }

    #[test]
    fn no_bytes_end_the_server(bytes in prop::collection::vec(any::<u8>(), 0..200), opcode in 0u32..60) {
        let mut guest = Guest::new();
        let _ = guest.send_bytes(&bytes);
        let header = InHeader {
            len: (size_of::<InHeader>() + bytes.len()) as u32, opcode, nodeid: ROOT_NODE, ..InHeader::default()
        };
        let _ = guest.send_bytes(&[header.as_slice(), &bytes].concat());
        guest.check_descriptors();
    }
}
