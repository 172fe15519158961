use proptest::prelude::*;
use virtio_vsock::packet::VsockPacket;

use super::*;

fn headers() -> impl Strategy<Value = Header> {
    (any::<[u64; 2]>(), any::<[u32; 3]>(), any::<[u16; 2]>(), any::<[u32; 3]>()).prop_map(
        |([src_cid, dst_cid], [src_port, dst_port, len], [socket_type, op], [flags, buf_alloc, fwd_cnt])| {
            Header { src_cid, dst_cid, src_port, dst_port, len, socket_type, op, flags, buf_alloc, fwd_cnt }
        },
    )
}

proptest! {
    #[test]
    fn encoding_is_that_of_the_virtio_vsock_crate(header in headers()) {
        let mut bytes = [0; HEADER_SIZE];
        // SAFETY: `bytes` outlives the packet and is not used while it exists.
        let mut packet = unsafe { VsockPacket::new(&mut bytes, None) }.unwrap();
        packet.set_header_from_raw(&header.encode()).unwrap();
        prop_assert_eq!(packet.src_cid(), header.src_cid);
        prop_assert_eq!(packet.dst_cid(), header.dst_cid);
        prop_assert_eq!(packet.src_port(), header.src_port);
        prop_assert_eq!(packet.dst_port(), header.dst_port);
        prop_assert_eq!(packet.len(), header.len);
        prop_assert_eq!(packet.type_(), header.socket_type);
        prop_assert_eq!(packet.op(), header.op);
        prop_assert_eq!(packet.flags(), header.flags);
        prop_assert_eq!(packet.buf_alloc(), header.buf_alloc);
        prop_assert_eq!(packet.fwd_cnt(), header.fwd_cnt);
    }

    #[test]
    fn decoding_undoes_encoding(header in headers()) {
        prop_assert_eq!(Header::decode(&header.encode()), header);
    }
}
