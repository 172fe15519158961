//! A guest that breaks the rules gets refusals, resets or a failed device; the host keeps its memory and its wits.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::LazyLock,
};

use proptest::{collection::vec, prelude::*};
use stockade_protocol::agent::{AGENT_PORT, READY_PORT};

use super::{
    fixture::*,
    packet::{HEADER_SIZE, Header, op, shutdown},
};
use crate::virtio::queue_fixture::Buffer;

const GUEST_PORT: u32 = 40_000;

/// Mostly right values, so that packets get beyond the first check.
fn headers() -> impl Strategy<Value = Header> {
    let op = prop_oneof![9 => 1..=7u16, 1 => any::<u16>()];
    let host_port = prop_oneof![Just(READY_PORT), 1024..1030u32, any::<u32>()];
    let guest_port = prop_oneof![Just(AGENT_PORT), Just(GUEST_PORT), any::<u32>()];
    let cids = prop_oneof![9 => Just((GUEST_CID, 2)), 1 => any::<(u64, u64)>()];
    let socket_type = prop_oneof![9 => Just(1u16), 1 => any::<u16>()];
    let counts = (
        prop_oneof![Just(0), Just(256 << 10), any::<u32>()],
        prop_oneof![3 => Just(0), 1 => any::<u32>()],
        prop_oneof![0..4u32, any::<u32>()],
    );
    (op, host_port, guest_port, cids, socket_type, counts).prop_map(
        |(op, dst_port, src_port, (src_cid, dst_cid), socket_type, (buf_alloc, fwd_cnt, flags))| Header {
            src_cid,
            dst_cid,
            src_port,
            dst_port,
            len: 0,
            socket_type,
            op,
            flags,
            buf_alloc,
            fwd_cnt,
        },
    )
}

#[derive(Clone, Debug)]
enum Act {
    Packet(Header, usize, Vec<usize>),
    ClientConnects,
    ClientWrites(usize, usize),
    ClientReads(usize),
    ClientCloses(usize),
    Starve,
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (headers(), 0..60_000usize, vec(0..100usize, 0..4)).prop_map(|(h, n, l)| Act::Packet(h, n, l)),
        2 => Just(Act::ClientConnects),
        1 => (0..4usize, 1..100_000usize).prop_map(|(client, count)| Act::ClientWrites(client, count)),
        1 => (0..4usize).prop_map(Act::ClientReads),
        1 => (0..4usize).prop_map(Act::ClientCloses),
        1 => Just(Act::Starve),
    ]
}

proptest! {
    #[test]
    fn no_packet_hurts(script in vec(acts(), 1..80)) {
        let mut bench = Bench::new();
        bench.agent_connects(GUEST_PORT + 1);
        let mut clients: Vec<UnixStream> = Vec::new();
        let data = pattern(0, 100_000);
        for act in script {
            match act {
                Act::Packet(header, count, lengths) => _ = bench.guest.send_split(header, &data[..count], &lengths),
                Act::ClientConnects => {
                    let client = bench.host.connect();
                    client.set_nonblocking(true).unwrap();
                    clients.push(client);
                }
                Act::ClientWrites(client, count) => {
                    if let Some(client) = clients.get_mut(client) {
                        _ = client.write(&data[..count]);
                    }
                }
                Act::ClientReads(client) => {
                    if let Some(client) = clients.get_mut(client) {
                        _ = client.read(&mut [0; 10_000]);
                    }
                }
                Act::ClientCloses(client) => {
                    if client < clients.len() {
                        clients.remove(client);
                    }
                }
                Act::Starve => {
                    bench.run_starved();
                    continue;
                }
            }
            bench.run();
            for (header, _) in bench.inbox.drain(..) {
                prop_assert!((1..=7).contains(&header.op));
            }
        }
        // The device is none the worse for it.
        drop(clients);
        bench.run();
        bench.inbox.clear();
        let (mut client, port) = bench.establish();
        bench.send_data(header(op::RW, AGENT_PORT, port), b"fine");
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        prop_assert_eq!(&answer, b"fine");
    }

    #[test]
    fn no_descriptor_hurts(
        descriptors in vec((any::<u64>(), any::<u32>(), 0..8u16, 0..140u16), 1..40),
        heads in vec(0..140u16, 1..40),
        jump in any::<u16>(),
        in_rx in any::<bool>(),
    ) {
        let mut bench = Bench::new();
        bench.agent_connects(GUEST_PORT);
        let queue = if in_rx { &mut bench.guest.rx } else { &mut bench.guest.tx };
        for (index, (address, length, flags, next)) in descriptors.into_iter().enumerate() {
            // Some addresses in memory, some not.
            let address = if length % 2 == 0 { address % 0x100_0000 } else { address };
            let length = if flags % 2 == 0 { length % 0x1_0000 } else { length };
            queue.write_descriptor(index as u16, Buffer { address, length, writable: false }, flags, next);
        }
        for head in heads {
            queue.publish(head);
        }
        if jump % 4 == 0 {
            queue.set_avail_index(jump);
        }
        bench.host.ready.write_all(&[0; 5000]).unwrap();
        // Either way it returns.
        let _ = bench.rounds_with_signals();
    }
}

#[test]
fn lengths_beyond_the_chain_fail_the_device() {
    let mut bench = Bench::new();
    let bytes = Header { len: 1000, ..header(op::RW, GUEST_PORT, 1024) }.encode();
    let address = 0x20_0000;
    vm_memory::Bytes::write_slice(&bench.guest.memory, &bytes, vm_memory::GuestAddress(address)).unwrap();
    bench.guest.tx.offer(&[Buffer { address, length: HEADER_SIZE as u32 + 999, writable: false }]);
    let error = bench.try_run().unwrap_err().to_string();
    assert!(error.contains("1043 bytes for a packet of 1044"), "{error}");
}

#[test]
fn short_and_broken_chains_fail_the_device() {
    type Break = fn(&mut Bench);
    let cases: [(&str, Break); 5] = [
        ("40 bytes for a packet of 44", |bench| {
            bench.guest.tx.offer(&[Buffer { address: 0x20_0000, length: 40, writable: false }]);
        }),
        ("writable", |bench| {
            bench.guest.tx.offer(&[Buffer { address: 0x20_0000, length: 44, writable: true }]);
        }),
        ("outside guest memory", |bench| {
            bench.guest.tx.offer(&[Buffer { address: u64::MAX - 10, length: 44, writable: false }]);
        }),
        ("0 bytes", |bench| bench.guest.tx.publish(500)),
        ("available ring", |bench| bench.guest.tx.set_avail_index(1000)),
    ];
    for (expected, break_rules) in cases {
        let mut bench = Bench::new();
        break_rules(&mut bench);
        let error = bench.try_run().unwrap_err().to_string();
        assert!(error.contains("tx queue") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_flood_without_receive_buffers_is_bounded() {
    let mut bench = Bench::new();
    bench.agent_connects(GUEST_PORT);
    // Uses up the guest's buffers, and then some.
    for port in 0..2000 {
        bench.guest.send(header(op::REQUEST, port, 7), &[]);
        bench.run_starved();
    }
    bench.run();
    // All buffers, and what was kept beyond that.
    assert!(bench.inbox.len() <= 128 + 256, "{}", bench.inbox.len());
    assert!(bench.inbox.iter().all(|(header, _)| header.op == op::RST));
    bench.inbox.clear();
    bench.establish();
}

/// What both ends send in the interleaving test, from different places.
static STREAM: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(0, 4 << 20));

/// What both ends do in the interleaving test.
#[derive(Clone, Debug)]
enum Step {
    ClientWrites(usize),
    ClientReads(usize),
    ClientEnds,
    GuestSends(usize, Vec<usize>),
    GuestReads,
    GuestEnds,
    GuestTellsCredit,
    Starve,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..200_000usize).prop_map(Step::ClientWrites),
        4 => (1..200_000usize).prop_map(Step::ClientReads),
        1 => Just(Step::ClientEnds),
        4 => (1..65_537usize, vec(0..5000usize, 0..6)).prop_map(|(n, l)| Step::GuestSends(n, l)),
        2 => Just(Step::GuestReads),
        1 => Just(Step::GuestEnds),
        2 => Just(Step::GuestTellsCredit),
        2 => Just(Step::Starve),
    ]
}

/// The guest's end of one connection.
struct GuestEnd {
    port: u32,
    /// Its receive buffer.
    buf_alloc: u32,
    sent: u32,
    host_buf_alloc: u32,
    host_fwd_cnt: u32,
    received: Vec<u8>,
    host_ended: bool,
    ended: bool,
}

impl GuestEnd {
    fn header(&self, op: u16) -> Header {
        let fwd_cnt = self.received.len() as u32;
        Header { fwd_cnt, buf_alloc: self.buf_alloc, ..header(op, AGENT_PORT, self.port) }
    }

    fn credit(&self) -> usize {
        (self.host_buf_alloc - (self.sent - self.host_fwd_cnt)) as usize
    }

    /// Takes what has come.
    fn read(&mut self, bench: &mut Bench) {
        for (header, data) in std::mem::take(&mut bench.inbox) {
            assert_eq!(header.src_port, self.port);
            if header.op == op::RST {
                // To something said after both ends.
                assert!(self.ended && self.host_ended);
                continue;
            }
            assert!(
                matches!(header.op, op::RW | op::SHUTDOWN | op::CREDIT_UPDATE | op::CREDIT_REQUEST),
                "{header:?}"
            );
            self.host_buf_alloc = header.buf_alloc;
            self.host_fwd_cnt = header.fwd_cnt;
            if header.op == op::RW {
                assert!(!self.host_ended);
                self.received.extend(data);
            }
            self.host_ended |= header.op == op::SHUTDOWN && header.flags & shutdown::SEND != 0;
        }
    }

    fn send(&mut self, bench: &mut Bench, data: &[u8], lengths: &[usize]) -> usize {
        let count = data.len().min(self.credit());
        if count == 0 || !bench.guest.send_split(self.header(op::RW), &data[..count], lengths) {
            return 0;
        }
        self.sent = self.sent.wrapping_add(count as u32);
        count
    }

    fn end(&mut self, bench: &mut Bench) {
        if !self.ended {
            let packet = Header { flags: shutdown::SEND, ..self.header(op::SHUTDOWN) };
            self.ended = bench.guest.send_split(packet, &[], &[]);
        }
    }
}

fn read_some(client: &mut UnixStream, found: &mut Vec<u8>, count: usize) -> bool {
    let mut bytes = vec![0; count];
    match client.read(&mut bytes) {
        Ok(0) => return true,
        Ok(read) => found.extend(&bytes[..read]),
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
    false
}

proptest! {
    #[test]
    fn every_byte_arrives_in_every_interleaving(
        script in vec(steps(), 1..120),
        buf_alloc in prop_oneof![500..5000u32, Just(256 << 10)],
        event_idx in any::<bool>(),
    ) {
        let mut bench = Bench::with_event_idx(event_idx);
        bench.agent_connects(GUEST_PORT);
        let mut client = bench.host.connect();
        let (request, _) = bench.next();
        let mut guest = GuestEnd {
            port: request.src_port,
            buf_alloc,
            sent: 0,
            host_buf_alloc: request.buf_alloc,
            host_fwd_cnt: 0,
            received: Vec::new(),
            host_ended: false,
            ended: false,
        };
        bench.guest.send(guest.header(op::RESPONSE), &[]);
        client.set_nonblocking(true).unwrap();
        let (down, up) = (&STREAM[7..], &STREAM[9..]);
        let (mut written, mut sent, mut client_ended) = (0, 0, false);
        let mut found = Vec::new();
        let mut end_of_file = false;
        for step in script {
            match step {
                Step::ClientWrites(count) if !client_ended => {
                    let chunk = &down[written..(written + count).min(down.len())];
                    match client.write(chunk) {
                        Ok(count) => written += count,
                        Err(error) => prop_assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                }
                Step::ClientWrites(_) => {}
                Step::ClientReads(count) => end_of_file |= read_some(&mut client, &mut found, count),
                Step::ClientEnds => {
                    _ = client.shutdown(Shutdown::Write);
                    client_ended = true;
                }
                Step::GuestSends(count, lengths) if !guest.ended => {
                    sent += guest.send(&mut bench, &up[sent..(sent + count).min(up.len())], &lengths);
                }
                Step::GuestSends(..) => {}
                Step::GuestReads => guest.read(&mut bench),
                Step::GuestEnds => guest.end(&mut bench),
                Step::GuestTellsCredit => _ = bench.guest.send_split(guest.header(op::CREDIT_UPDATE), &[], &[]),
                Step::Starve => {
                    bench.run_starved();
                    continue;
                }
            }
            bench.run();
        }
        prop_assert!(!end_of_file || guest.ended);
        // Both come to their ends, reading all.
        _ = client.shutdown(Shutdown::Write);
        guest.end(&mut bench);
        for _ in 0..100_000 {
            if end_of_file && guest.host_ended {
                break;
            }
            guest.read(&mut bench);
            guest.end(&mut bench);
            if !guest.host_ended {
                bench.guest.send_split(guest.header(op::CREDIT_UPDATE), &[], &[]);
            }
            end_of_file |= read_some(&mut client, &mut found, 1 << 20);
            bench.run();
        }
        prop_assert!(end_of_file && guest.host_ended);
        prop_assert!(found == up[..sent]);
        prop_assert!(guest.received == down[..written]);
    }

    #[test]
    fn a_stream_does_not_depend_on_its_descriptors(lengths in vec(0..200usize, 0..100), count in 0..60_000usize) {
        let mut bench = Bench::new();
        bench.agent_connects(GUEST_PORT);
        let sent = pattern(11, count);
        prop_assert!(bench.guest.send_split(header(op::RW, GUEST_PORT, READY_PORT), &sent, &lengths));
        bench.run();
        let mut ready = bench.host.ready.try_clone().unwrap();
        prop_assert!(read_while_running(&mut bench, &mut ready, count) == sent);
    }
}

#[test]
fn connections_do_not_touch_each_other() {
    let mut bench = Bench::new();
    bench.agent_connects(GUEST_PORT);
    let mut open: HashMap<u32, UnixStream> = (0..10)
        .map(|_| {
            let (client, port) = bench.establish();
            (port, client)
        })
        .collect();
    let ports: Vec<u32> = open.keys().copied().collect();
    for port in &ports[..5] {
        bench.send(op::RST, AGENT_PORT, *port);
        open.remove(port);
    }
    for (port, client) in &mut open {
        bench.send_data(header(op::RW, AGENT_PORT, *port), &port.to_le_bytes());
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(u32::from_le_bytes(bytes), *port);
    }
}
