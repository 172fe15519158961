//! What the two ends of connections see.

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::atomic::Ordering,
};

use stockade_protocol::agent::{AGENT_PORT, READY_PORT};

use super::{
    fixture::*,
    muxer::MAX_CONNECTIONS,
    packet::{HOST_CID, Header, op, shutdown},
};

const GUEST_PORT: u32 = 40_000;
const WINDOW: usize = 256 << 10;

/// A bench whose agent has connected, its ready connection aside.
fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.agent_connects(GUEST_PORT);
    bench
}

fn assert_nothing_more(bench: &mut Bench) {
    bench.run();
    assert_eq!(bench.inbox, []);
}

fn assert_end_of_file(socket: &mut UnixStream) {
    socket.set_nonblocking(true).unwrap();
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0);
}

fn assert_open(socket: &mut UnixStream) {
    socket.set_nonblocking(true).unwrap();
    assert_eq!(socket.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// Collects data packets of one connection until `count` bytes have come.
fn data(bench: &mut Bench, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let (header, data) = bench.next();
        assert_eq!(header.op, op::RW, "{header:?}");
        bytes.extend(data);
    }
    assert_eq!(bytes.len(), count);
    bytes
}

#[test]
fn the_agent_connects_once() {
    let mut bench = Bench::new();
    bench.send(op::REQUEST, GUEST_PORT, READY_PORT);
    let (answer, _) = bench.next();
    assert_eq!((answer.op, answer.src_port, answer.dst_port), (op::RESPONSE, READY_PORT, GUEST_PORT));
    assert_eq!((answer.src_cid, answer.dst_cid), (HOST_CID, GUEST_CID));
    assert_eq!(answer.buf_alloc as usize, WINDOW);
    assert_eq!(bench.host.announced.load(Ordering::SeqCst), 1);

    bench.send_data(header(op::RW, GUEST_PORT, READY_PORT), b"here I am");
    let mut message = [0; 9];
    bench.host.ready.read_exact(&mut message).unwrap();
    assert_eq!(&message, b"here I am");
    bench.host.ready.write_all(b"hello").unwrap();
    assert_eq!(data(&mut bench, 5), b"hello");

    for port in [GUEST_PORT, GUEST_PORT + 1] {
        bench.send(op::REQUEST, port, READY_PORT);
        assert_eq!(bench.next().0.op, op::RST);
    }
    assert_eq!(bench.host.announced.load(Ordering::SeqCst), 1);
}

#[test]
fn nothing_else_on_the_host_can_be_reached() {
    let mut bench = bench();
    for port in [0, 2, 22, 1024, AGENT_PORT + 1, u32::MAX] {
        bench.send(op::REQUEST, GUEST_PORT + 1, port);
        let (answer, _) = bench.next();
        assert_eq!((answer.op, answer.src_port, answer.dst_port), (op::RST, port, GUEST_PORT + 1));
    }
    for dst_cid in [0, 1, GUEST_CID, 4, u64::MAX] {
        bench.guest.send(Header { dst_cid, ..header(op::REQUEST, GUEST_PORT + 1, READY_PORT) }, &[]);
        let (answer, _) = bench.next();
        assert_eq!((answer.op, answer.src_cid), (op::RST, dst_cid));
    }
    bench.guest.send(Header { socket_type: 2, ..header(op::REQUEST, GUEST_PORT + 1, READY_PORT) }, &[]);
    let (answer, _) = bench.next();
    assert_eq!((answer.op, answer.socket_type), (op::RST, 2));
    bench.guest.send(Header { src_cid: 99, ..header(op::REQUEST, GUEST_PORT + 1, READY_PORT) }, &[]);
    assert_nothing_more(&mut bench);
}

#[test]
fn clients_wait_for_the_agent() {
    let mut bench = Bench::new();
    let mut clients: Vec<_> = (0..3).map(|_| bench.host.connect()).collect();
    clients[0].write_all(b"early").unwrap();
    assert_nothing_more(&mut bench);
    bench.agent_connects(GUEST_PORT);
    let requests: Vec<_> = (0..3).map(|_| bench.next().0).collect();
    for (index, request) in requests.iter().enumerate() {
        assert_eq!((request.op, request.dst_port, request.src_cid), (op::REQUEST, AGENT_PORT, HOST_CID));
        assert!(request.src_port >= 1024);
        assert!(requests[..index].iter().all(|other| other.src_port != request.src_port));
    }
    assert_nothing_more(&mut bench);
    bench.send(op::RESPONSE, AGENT_PORT, requests[0].src_port);
    assert_eq!(data(&mut bench, 5), b"early");
}

#[test]
fn a_refused_client_sees_its_connection_end() {
    let mut bench = bench();
    let mut client = bench.host.connect();
    let (request, _) = bench.next();
    bench.send(op::RST, AGENT_PORT, request.src_port);
    assert_end_of_file(&mut client);
    assert_nothing_more(&mut bench);
}

#[test]
fn all_bytes_arrive_at_a_slow_reader() {
    let mut bench = bench();
    let (mut client, port) = bench.establish();
    let sent = pattern(1, 4 * WINDOW);
    let (mut from, mut forwarded) = (0, 0);
    let mut found = Vec::new();
    while found.len() < sent.len() {
        while from < sent.len() && from - forwarded < WINDOW {
            let count = (sent.len() - from).min(WINDOW - (from - forwarded)).min(60_000);
            bench.send_data(header(op::RW, AGENT_PORT, port), &sent[from..from + count]);
            from += count;
            for (update, _) in bench.inbox.drain(..) {
                assert_eq!(update.op, op::CREDIT_UPDATE);
                forwarded = update.fwd_cnt as usize;
            }
        }
        let count = (sent.len() - found.len()).min(10_000);
        found.extend(read_while_running(&mut bench, &mut client, count));
        for (update, _) in bench.inbox.drain(..) {
            assert_eq!(update.op, op::CREDIT_UPDATE);
            forwarded = update.fwd_cnt as usize;
        }
    }
    assert!(found == sent);
}

#[test]
fn all_bytes_arrive_in_the_guest() {
    let mut bench = bench();
    let (mut client, _) = bench.establish();
    let sent = pattern(2, 2 * WINDOW);
    let (first, second) = sent.split_at(WINDOW);
    write_while_running(&mut bench, &mut client, first);
    assert!(data(&mut bench, WINDOW) == first);
    // The guest's buffer is full as far as the host knows.
    assert_eq!(bench.next().0.op, op::CREDIT_REQUEST);
    client.write_all(&second[..1]).unwrap();
    assert_nothing_more(&mut bench);
    let port = 1024;
    bench.send(op::CREDIT_UPDATE, AGENT_PORT, port);
    write_while_running(&mut bench, &mut client, &second[1..]);
    assert!(data(&mut bench, WINDOW) == second);
}

#[test]
fn each_side_may_end_its_direction_first() {
    let mut bench = bench();
    let (mut client, port) = bench.establish();
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(data(&mut bench, 10), b"last words");
    let (end, _) = bench.next();
    assert_eq!((end.op, end.flags), (op::SHUTDOWN, shutdown::SEND));
    bench.send_data(header(op::RW, AGENT_PORT, port), b"answer");
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_open(&mut client);
    bench.guest.send(Header { flags: shutdown::SEND, ..header(op::SHUTDOWN, AGENT_PORT, port) }, &[]);
    let (end, _) = bench.next();
    assert_eq!((end.op, end.flags), (op::SHUTDOWN, shutdown::BOTH));
    assert_end_of_file(&mut client);

    let (mut client, port) = bench.establish();
    bench.send_data(header(op::RW, AGENT_PORT, port), b"output");
    bench.guest.send(Header { flags: shutdown::SEND, ..header(op::SHUTDOWN, AGENT_PORT, port) }, &[]);
    assert_nothing_more(&mut bench);
    let mut output = String::new();
    client.read_to_string(&mut output).unwrap();
    assert_eq!(output, "output");
    client.write_all(b"input").unwrap();
    assert_eq!(data(&mut bench, 5), b"input");
    drop(client);
    let (end, _) = bench.next();
    assert_eq!((end.op, end.flags), (op::SHUTDOWN, shutdown::BOTH));
    assert_nothing_more(&mut bench);
}

#[test]
fn a_guest_that_reads_no_more_breaks_the_pipe() {
    let mut bench = bench();
    let (mut client, port) = bench.establish();
    bench.guest.send(Header { flags: shutdown::RCV, ..header(op::SHUTDOWN, AGENT_PORT, port) }, &[]);
    assert_nothing_more(&mut bench);
    assert_eq!(client.write(b"lost").unwrap_err().kind(), ErrorKind::BrokenPipe);
    bench.send_data(header(op::RW, AGENT_PORT, port), b"output");
    let mut output = [0; 6];
    client.read_exact(&mut output).unwrap();
    bench.guest.send(Header { flags: shutdown::SEND, ..header(op::SHUTDOWN, AGENT_PORT, port) }, &[]);
    assert_eq!(bench.next().0.op, op::RST);
    assert_end_of_file(&mut client);
}

/// Fills the client's socket and the backlog behind it.
fn fill(bench: &mut Bench, port: u32) -> Vec<u8> {
    let sent = pattern(3, WINDOW);
    for chunk in sent.chunks(60_000) {
        bench.send_data(header(op::RW, AGENT_PORT, port), chunk);
    }
    bench.inbox.clear();
    sent
}

#[test]
fn a_guest_that_closes_loses_nothing_that_it_sent() {
    for ending in [op::SHUTDOWN, op::RST] {
        let mut bench = bench();
        let (mut client, port) = bench.establish();
        let sent = fill(&mut bench, port);
        bench.guest.send(Header { flags: shutdown::BOTH, ..header(ending, AGENT_PORT, port) }, &[]);
        if ending == op::SHUTDOWN {
            // At once: Linux waits 8 seconds for it, and then resets.
            assert_eq!(bench.next().0.op, op::RST);
        }
        assert_nothing_more(&mut bench);
        assert!(read_while_running(&mut bench, &mut client, WINDOW) == sent);
        bench.run();
        assert_end_of_file(&mut client);
    }
}

#[test]
fn an_orderly_end_is_no_reset_for_a_client_whose_bytes_nobody_read() {
    let mut bench = bench();
    let (mut client, port) = bench.establish();
    bench.guest.send(Header { buf_alloc: 0, ..header(op::CREDIT_UPDATE, AGENT_PORT, port) }, &[]);
    bench.run();
    client.write_all(b"never read").unwrap();
    bench.send_data(header(op::RW, AGENT_PORT, port), b"bye");
    bench.guest.send(Header { flags: shutdown::BOTH, ..header(op::SHUTDOWN, AGENT_PORT, port) }, &[]);
    bench.run();
    let mut output = String::new();
    client.read_to_string(&mut output).unwrap();
    assert_eq!(output, "bye");
}

#[test]
fn a_killed_client_is_noticed_at_once() {
    let mut bench = bench();
    let (client, port) = bench.establish();
    drop(client);
    let (end, _) = bench.next();
    assert_eq!((end.op, end.flags), (op::SHUTDOWN, shutdown::BOTH));
    assert_nothing_more(&mut bench);
    // What was under way meanwhile belongs to no connection.
    bench.send_data(header(op::RW, AGENT_PORT, port), b"late");
    assert_eq!(bench.next().0.op, op::RST);
    bench.send(op::RST, AGENT_PORT, port);
    assert_nothing_more(&mut bench);
}

#[test]
fn a_killed_client_with_a_backlog_is_noticed_at_once() {
    let mut bench = bench();
    let (client, port) = bench.establish();
    fill(&mut bench, port);
    drop(client);
    let (end, _) = bench.next();
    assert_eq!((end.op, end.flags), (op::SHUTDOWN, shutdown::BOTH));
    assert_nothing_more(&mut bench);
}

#[test]
fn a_killed_client_is_noticed_by_a_guest_that_does_not_read() {
    let mut bench = bench();
    let (mut client, port) = bench.establish();
    bench.guest.send(Header { buf_alloc: 4, ..header(op::CREDIT_UPDATE, AGENT_PORT, port) }, &[]);
    bench.run();
    client.write_all(b"last words").unwrap();
    drop(client);
    bench.run();
    let ops: Vec<_> =
        bench.inbox.drain(..).map(|(header, _)| (header.op, header.flags, header.len)).collect();
    // Nobody takes its output, which it may know now; the end of its input comes after the input.
    assert!(ops.contains(&(op::SHUTDOWN, shutdown::RCV, 0)), "{ops:?}");
    assert!(ops.contains(&(op::RW, 0, 4)), "{ops:?}");
    assert!(!ops.iter().any(|(op, flags, _)| *op == op::SHUTDOWN && flags & shutdown::SEND != 0), "{ops:?}");
    bench.send(op::CREDIT_UPDATE, AGENT_PORT, port);
    assert_eq!(data(&mut bench, 6), b" words");
    let (end, _) = bench.next();
    assert_eq!((end.op, end.flags), (op::SHUTDOWN, shutdown::BOTH));
}

#[test]
fn a_client_that_reads_no_more_stops_the_guest() {
    let mut bench = bench();
    let (mut client, port) = bench.establish();
    client.shutdown(Shutdown::Read).unwrap();
    bench.send_data(header(op::RW, AGENT_PORT, port), b"lost");
    let (end, _) = bench.next();
    assert_eq!((end.op, end.flags, end.fwd_cnt), (op::SHUTDOWN, shutdown::RCV, 4));
    client.write_all(b"still here").unwrap();
    assert_eq!(data(&mut bench, 10), b"still here");
}

#[test]
fn sockets_are_read_only_into_receive_buffers() {
    let mut bench = bench();
    let (mut client, port) = bench.establish();
    // The guest stops providing buffers; those that it has provided are used up.
    let sent = pattern(4, 200 * RX_BUFFER_SIZE as usize);
    client.set_nonblocking(true).unwrap();
    let mut written = 0;
    while let Ok(count) = client.write(&sent[written..]) {
        written += count;
    }
    bench.guest.send(Header { buf_alloc: u32::MAX, ..header(op::CREDIT_UPDATE, AGENT_PORT, port) }, &[]);
    bench.run_starved();
    while let Ok(count) = client.write(&sent[written..]) {
        written += count;
        bench.run_starved();
    }
    bench.collect();
    let held: usize = bench.inbox.iter().map(|(_, data)| data.len()).sum();
    assert!(held < written);
    assert!(bench.worker.is_idle());
    // And goes on.
    bench.guest.offer_buffers(128);
    assert!(data(&mut bench, written) == sent[..written]);
}

#[test]
fn credit_is_answered_when_asked_for() {
    let mut bench = bench();
    let (_client, port) = bench.establish();
    bench.send_data(header(op::RW, AGENT_PORT, port), b"12345");
    assert_nothing_more(&mut bench);
    bench.send(op::CREDIT_REQUEST, AGENT_PORT, port);
    let (update, _) = bench.next();
    assert_eq!((update.op, update.buf_alloc as usize, update.fwd_cnt), (op::CREDIT_UPDATE, WINDOW, 5));
}

#[test]
fn an_overrun_of_credit_ends_the_connection() {
    let mut bench = bench();
    let (mut client, port) = bench.establish();
    let sent = fill(&mut bench, port);
    // The socket has taken a part, so there is some credit, but not for twice the window.
    let more = pattern(5, 0xffff);
    let mut accepted = sent;
    loop {
        bench.guest.send(header(op::RW, AGENT_PORT, port), &more);
        bench.run();
        if let Some((answer, _)) = bench.inbox.iter().find(|(header, _)| header.op != op::CREDIT_UPDATE) {
            assert_eq!(answer.op, op::RST);
            break;
        }
        accepted.extend(&more);
        assert!(accepted.len() < 4 * WINDOW);
    }
    bench.inbox.clear();
    assert!(read_while_running(&mut bench, &mut client, accepted.len()) == accepted);
    bench.run();
    assert_end_of_file(&mut client);
}

#[test]
fn packets_out_of_order_end_the_connection() {
    for op in [op::REQUEST, op::RESPONSE, 0, 8, u16::MAX] {
        let mut bench = bench();
        let (mut client, port) = bench.establish();
        bench.send(op, AGENT_PORT, port);
        assert_eq!(bench.next().0.op, op::RST);
        assert_end_of_file(&mut client);
    }
    let mut bench = bench();
    let mut client = bench.host.connect();
    let (request, _) = bench.next();
    bench.send_data(header(op::RW, AGENT_PORT, request.src_port), b"too early");
    assert_eq!(bench.next().0.op, op::RST);
    assert_end_of_file(&mut client);
    let (mut client, port) = bench.establish();
    bench.guest.send(Header { flags: shutdown::SEND, ..header(op::SHUTDOWN, AGENT_PORT, port) }, &[]);
    bench.send_data(header(op::RW, AGENT_PORT, port), b"too late");
    assert_eq!(bench.next().0.op, op::RST);
    assert_end_of_file(&mut client);
}

#[test]
fn clients_beyond_the_limit_wait() {
    let mut bench = bench();
    let mut clients = Vec::new();
    // One connection is the ready one.
    for _ in 1..MAX_CONNECTIONS {
        clients.push(bench.establish());
    }
    let _waiting = bench.host.connect();
    assert_nothing_more(&mut bench);
    let (client, _) = clients.pop().unwrap();
    drop(client);
    let (end, _) = bench.next();
    assert_eq!((end.op, end.flags), (op::SHUTDOWN, shutdown::BOTH));
    let (request, _) = bench.next();
    assert_eq!((request.op, request.buf_alloc), (op::REQUEST, 16 << 10));
    assert_nothing_more(&mut bench);
}

#[test]
fn sent_buffers_come_back_without_an_answer() {
    for event_idx in [false, true] {
        let mut bench = Bench::with_event_idx(event_idx);
        bench.agent_connects(GUEST_PORT);
        while bench.guest.tx.used().is_some() {}
        bench.interrupts();
        bench.send_data(header(op::RW, GUEST_PORT, READY_PORT), b"no answer");
        assert!(bench.guest.tx.used().is_some());
        assert_eq!(bench.interrupts(), 1);
    }
}

#[test]
fn a_batch_of_packets_is_one_interrupt() {
    for event_idx in [false, true] {
        let mut bench = Bench::with_event_idx(event_idx);
        bench.agent_connects(GUEST_PORT);
        bench.interrupts();
        for _ in 0..20 {
            bench.guest.send(header(op::REQUEST, GUEST_PORT, 9), &[]);
        }
        bench.run_starved();
        assert!(bench.interrupts() <= 2);
        bench.collect();
        assert_eq!(bench.inbox.len(), 20);
    }
}
