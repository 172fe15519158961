//! Packets that no vsock driver sends. The connections that report the outcomes live beside them.

use alloc::format;

use super::harness::{Target, let_it_work};
use super::{Outcome, Report};
use crate::agent::Agent;
use crate::cpu;
use crate::virtio::{Ring, WRITE, id, pages};
use crate::vsock::{HOST, Header, op};

/// A packet and what it lies about.
type Lie = fn(&Header) -> Header;

const LIES: [(&str, Lie); 16] = [
    ("from another guest", |h| Header { src_cid: 77, ..*h }),
    ("from the host itself", |h| Header { src_cid: HOST, ..*h }),
    ("from the hypervisor", |h| Header { src_cid: 0, ..*h }),
    ("from a CID of 64 bits", |h| Header { src_cid: 1 << 32 | h.src_cid, ..*h }),
    ("to another guest", |h| Header { dst_cid: 4, ..*h }),
    ("to the hypervisor", |h| Header { dst_cid: 0, ..*h }),
    ("to this guest", |h| Header { dst_cid: h.src_cid, ..*h }),
    ("to everybody", |h| Header { dst_cid: u64::MAX, ..*h }),
    ("of sockets that are not streams", |h| Header { kind: 2, ..*h }),
    ("of no kind of socket", |h| Header { kind: 0xffff, ..*h }),
    ("of no operation", |h| Header { op: 0, ..*h }),
    ("of an operation that there is not", |h| Header { op: 0xffff, ..*h }),
    ("with all flags", |h| Header { flags: u32::MAX, ..*h }),
    ("with all credit", |h| Header { buf_alloc: u32::MAX, fwd_cnt: u32::MAX, ..*h }),
    ("with no credit", |h| Header { buf_alloc: 0, fwd_cnt: 1 << 31, ..*h }),
    ("to port 0", |h| Header { dst_port: 0, ..*h }),
];

const OPERATIONS: [(&str, u16); 7] = [
    ("REQUEST", op::REQUEST),
    ("RESPONSE", op::RESPONSE),
    ("RST", op::RST),
    ("SHUTDOWN", op::SHUTDOWN),
    ("RW", op::RW),
    ("CREDIT_UPDATE", op::CREDIT_UPDATE),
    ("CREDIT_REQUEST", op::CREDIT_REQUEST),
];

pub fn run(report: &mut Report<'_>) {
    for (what, lie) in LIES {
        report.case(&format!("vsock: packets {what}"), |agent| {
            for (_, operation) in OPERATIONS {
                for port in [1, 1024, 1025, 5000, u32::MAX] {
                    let header = agent.vsock.header(6000, port, operation);
                    lives(agent, &lie(&header), &[])?;
                }
            }
            Ok(())
        });
    }
    for (what, operation) in OPERATIONS {
        report.case(&format!("vsock: a flood of {what} for connections that never were"), |agent| {
            for port in 0..500 {
                let header = agent.vsock.header(7000 + port, 100 + port, operation);
                lives(agent, &header, &[])?;
            }
            agent.listen();
            Ok(())
        });
    }
    report.case("vsock: connections to the ready port, 2000 times", |agent| {
        for port in 0..2000 {
            let header = agent.vsock.header(8000 + port, 1, op::REQUEST);
            lives(agent, &header, &[])?;
            agent.listen();
        }
        Ok(())
    });
    report.case("vsock: connections to every port of the host that has a name", |agent| {
        for port in (0..1100).chain([2375, 6443, 10250, u32::MAX - 1, u32::MAX]).filter(|port| *port != 1) {
            let header = agent.vsock.header(9000, port, op::REQUEST);
            lives(agent, &header, &[])?;
            agent.listen();
        }
        Ok(())
    });
    report.case("vsock: data on connections that are not open", |agent| {
        for port in 1024..1200 {
            let header = Header { len: 4096, ..agent.vsock.header(1, port + 50_000, op::RW) };
            lives(agent, &header, &[b'x'; 4096])?;
            agent.listen();
        }
        Ok(())
    });
}

/// Sends it; the device must take it and go on.
fn lives(agent: &mut Agent, header: &Header, data: &[u8]) -> Outcome {
    match agent.vsock.send(header, data) {
        true => Ok(()),
        false => Err("the device has failed".into()),
    }
}

/// Each of these may fail the device, after which nobody is told anything: the host must live with that guest.
pub fn run_broken(report: &mut Report<'_>) {
    let name = "vsock: a packet that is longer than its buffers";
    report.begin(name);
    let slot = report.agent.vsock.slot;
    let header = Header { len: u32::MAX, ..report.agent.vsock.header(1, 1024, op::RW) };
    let sent = report.agent.vsock.send(&header, &[0; 16]);
    crate::say!("hostile guest: sent {sent}, failed {}", slot.has_failed());
    // The device anew, and at once with rings that are nonsense.
    let target = Target { name: "vsock", device: id::VSOCK, queue: 1 };
    for round in 0..20u64 {
        let Ok(mut ring) = target.start(slot, 0) else { break };
        break_ring(&mut ring, round);
        (0..3).for_each(|queue| slot.notify(queue));
        let_it_work();
    }
    crate::say!("hostile guest: the vsock device is left broken");
    cpu::halt();
}

fn break_ring(ring: &mut Ring, round: u64) {
    let (address, length) = match round % 5 {
        0 => (0xd000_0000, 4096),
        1 => (u64::MAX - 43, 44),
        2 => (pages(4096), u32::MAX),
        3 => (pages(4096), 43),
        _ => (ring.used, 64),
    };
    ring.describe(0, address, length, if round.is_multiple_of(2) { 0 } else { WRITE }, 0);
    ring.offer(0);
    ring.set_available(if round.is_multiple_of(3) { 0x8000 } else { 1 });
}
