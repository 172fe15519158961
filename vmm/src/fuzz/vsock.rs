//! The vsock device: chains of any shape, and streams between a guest that breaks the rules and clients on the host.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use stockade_protocol::agent::{AGENT_PORT, READY_PORT};
use vm_memory::{Bytes, GuestAddress};

use super::{driver, input::Input};
use crate::devices::vsock::{
    fixture::{Bench, GUEST_CID, header},
    packet::{HEADER_SIZE, Header, op},
};

/// Where the fixture's driver has its buffers to send.
const TX_BUFFERS: u64 = 0x20_0000;
const RX_BUFFERS: u64 = 0x10_0000;

/// Most clients on the host at a time, and in all: the device's backlog holds them.
const MAX_CLIENTS: usize = 4;
const MAX_CONNECTIONS: usize = 64;

/// Chains of the rx and tx queues as the input writes them.
pub fn packets(input: &[u8]) {
    let mut input = Input::new(input);
    let mut bench = Bench::with_event_idx(input.u8() & 1 != 0);
    // A packet that is right, for the input to build upon.
    let request = header(op::REQUEST, 40_000, READY_PORT).encode();
    bench.guest.memory.write_slice(&request, GuestAddress(TX_BUFFERS)).unwrap();
    while !input.is_empty() {
        let memory = bench.guest.memory.clone();
        match input.u8() % 4 {
            0 => driver::provoke(&memory, &mut bench.guest.rx, RX_BUFFERS, &mut input),
            _ => driver::provoke(&memory, &mut bench.guest.tx, TX_BUFFERS, &mut input),
        }
        if bench.rounds_with_signals().is_err() {
            return;
        }
    }
}

/// Packets with right and wrong headers, while clients connect, write, read and leave.
pub fn streams(input: &[u8]) {
    let mut input = Input::new(input);
    let mut bench = Bench::new();
    let mut clients: Vec<UnixStream> = Vec::new();
    let mut connections = 0;
    let data = [0x5a; 0x1_0000];
    while !input.is_empty() {
        let step = input.u8();
        let client = usize::from(step >> 4) % MAX_CLIENTS;
        match step & 7 {
            0..=3 => {
                let (header, cuts) = (packet(&mut input), input.u8());
                let length = usize::from(input.u16());
                let lengths = [HEADER_SIZE, 1, 100, 2000].map(|length| length >> (cuts & 3));
                bench.guest.send_split(header, &data[..length], &lengths[..usize::from(cuts >> 2) % 5]);
            }
            4 if clients.len() < MAX_CLIENTS && connections < MAX_CONNECTIONS => {
                connections += 1;
                let socket = bench.host.connect();
                socket.set_nonblocking(true).unwrap();
                clients.push(socket);
            }
            4 if client < clients.len() => drop(clients.remove(client)),
            5 => _ = clients.get_mut(client).map(|client| client.write(&data[..usize::from(input.u16())])),
            6 => _ = clients.get_mut(client).map(|client| client.read(&mut [0; 0x1000])),
            _ => bench.run_starved(),
        }
        if step & 8 != 0 && bench.try_run().is_err() {
            return;
        }
    }
}

/// A header, of which what the input does not change is right.
fn packet(input: &mut Input<'_>) -> Header {
    let (change, place) = (input.u8(), input.u8());
    let guest_port = if place & 1 == 0 { AGENT_PORT } else { 40_000 + u32::from(place >> 6) };
    let host_port = if place & 2 == 0 { READY_PORT } else { 1024 + u32::from(place >> 4 & 3) };
    let mut header = header(u16::from(change & 7), guest_port, host_port);
    if change & 8 != 0 {
        header.flags = u32::from(input.u8());
    }
    if change & 0x10 != 0 {
        header.buf_alloc = input.u32();
    }
    if change & 0x20 != 0 {
        header.fwd_cnt = input.u32();
    }
    if change & 0x40 != 0 {
        header.src_cid = if input.u8() & 1 == 0 { GUEST_CID } else { input.u64() };
        header.dst_cid = input.u8().into();
        header.socket_type = input.u8().into();
        header.op = input.u16();
    }
    if change & 0x80 != 0 {
        header.dst_port = input.u32();
        header.src_port = input.u32();
    }
    header
}
