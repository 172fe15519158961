//! The balloon and the memory device: reports of pages that are not the guest's, blocks that are not there.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::harness::{TARGETS, let_it_work, works};
use super::rings::end_of_memory;
use super::{Outcome, Report};
use crate::cpu;
use crate::virtio::{NEXT, Ring, Slot, VERSION_1, WRITE, id, pages, register};

const BLOCK: u64 = 2 << 20;
const REPORTS: u32 = 2;

/// Request types of the memory device.
const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;

/// Response types.
const ACK: u16 = 0;

pub fn run(report: &mut Report<'_>) {
    if let Some(slot) = Slot::find(id::BALLOON) {
        let end = end_of_memory();
        let reports = [
            ("beyond memory", end, 1 << 20),
            ("across the end of memory", end - 4096, 8192),
            ("in the hole of devices", 0xd000_0000, 4096),
            ("at the end of the address space", u64::MAX - 4095, 4096),
            ("whose end wraps", u64::MAX - 100, u32::MAX),
            ("of no length", pages(4096), 0),
            ("of less than a page", pages(4096) + 1, 4094),
            ("of 4 GiB", pages(4096), u32::MAX),
        ];
        for (what, address, length) in reports {
            report.case(&format!("balloon: a report of pages {what}"), |_| {
                balloon_report(slot, address, length)
            });
        }
        report.case("balloon: pages beyond memory to inflate with", |_| inflate(slot));
    }
    let Some(slot) = Slot::find(id::MEM) else {
        return report.end("mem: the device", Err("it is not there".into()));
    };
    let region = Region::read(slot);
    let Region { start, size, usable } = region;
    let requests = [
        ("plug behind the usable part", PLUG, start + usable, 1),
        ("plug behind the region", PLUG, start + size, 1),
        ("plug before the region", PLUG, start - BLOCK, 1),
        ("plug boot memory", PLUG, 0, 1),
        ("plug no block", PLUG, start, 0),
        ("plug at an odd address", PLUG, start + 4096, 1),
        ("plug 65535 blocks", PLUG, start, u16::MAX),
        ("plug at the end of the address space", PLUG, !(BLOCK - 1), u16::MAX),
        ("unplug what is not plugged", UNPLUG, start, 1),
        ("unplug boot memory", UNPLUG, 0, 16),
        ("unplug across the end", UNPLUG, start + usable - BLOCK, 2),
        ("the state of what is not there", STATE, start + usable, 1),
        ("the state of 65535 blocks", STATE, start, u16::MAX),
        ("a request that is none", 77, start, 1),
    ];
    for (what, kind, address, count) in requests {
        report.case(&format!("mem: {what} is refused"), |_| match mem_ask(slot, kind, address, count)? {
            ACK => Err("it is done".into()),
            _ => mem_works(slot),
        });
    }
    report.case("mem: a request of one byte", |_| odd_request(slot, 1, 16));
    report.case("mem: an answer of one byte", |_| odd_request(slot, 24, 1));
    report.case("mem: neither request nor answer", |_| odd_request(slot, 0, 0));
    report.case("mem: a request of 64 MiB", |_| odd_request(slot, 64 << 20, 16));
    report.case("mem: unplug all, again and again", |_| {
        (0..50).try_for_each(|_| mem_ask(slot, UNPLUG_ALL, 0, 0).map(drop))?;
        mem_works(slot)
    });
}

struct Region {
    start: u64,
    size: u64,
    usable: u64,
}

impl Region {
    fn read(slot: Slot) -> Self {
        let field = |at: u64| {
            let low = slot.read(register::CONFIG + at);
            u64::from(slot.read(register::CONFIG + at + 4)) << 32 | u64::from(low)
        };
        Self { start: field(16), size: field(24), usable: field(32) }
    }
}

fn balloon_report(slot: Slot, address: u64, length: u32) -> Outcome {
    let mut ring = TARGETS[3].start(slot, 1 << 5)?;
    ring.describe(0, address, length, WRITE, 0);
    ring.offer(0);
    slot.notify(REPORTS);
    let_it_work();
    works(slot)
}

fn inflate(slot: Slot) -> Outcome {
    slot.negotiate(VERSION_1);
    let mut ring = Ring::new(16);
    slot.set_queue(0, &ring);
    slot.go();
    let frames = pages(4096);
    (0..1024).for_each(|index| cpu::write32(frames + 4 * index, u32::MAX - index as u32));
    ring.describe(0, frames, 4096, 0, 0);
    ring.offer(0);
    slot.notify(0);
    let_it_work();
    works(slot)
}

fn mem_ask(slot: Slot, kind: u16, address: u64, count: u16) -> Result<u16, String> {
    let mut ring = TARGETS[4].start(slot, 0)?;
    let (request, answer) = (pages(24), pages(16));
    cpu::write16(request, kind);
    cpu::write64(request + 8, address);
    cpu::write16(request + 16, count);
    cpu::write16(answer, 0xffff);
    ring.describe(0, request, 24, NEXT, 1);
    ring.describe(1, answer, 16, WRITE, 0);
    ring.offer(0);
    slot.notify(0);
    match ring.wait(slot) {
        Some(_) => Ok(cpu::read16(answer)),
        None => Err("the mem device does not answer".into()),
    }
}

fn odd_request(slot: Slot, request: u32, answer: u32) -> Outcome {
    let mut ring = TARGETS[4].start(slot, 0)?;
    ring.describe(0, pages(4096), request, NEXT, 1);
    ring.describe(1, pages(4096), answer, WRITE, 0);
    ring.offer(0);
    slot.notify(0);
    let_it_work();
    mem_works(slot)
}

/// It answers what the state of its first block is, or that there is none.
pub fn mem_works(slot: Slot) -> Outcome {
    let region = Region::read(slot);
    match mem_ask(slot, STATE, region.start, 1)? {
        0xffff => Err("the mem device answers nothing".into()),
        _ => Ok(()),
    }
}

/// Buffers in memory that the guest could have but has not: what the VMM makes of that is its business, as long as it lives
/// or says why not.
pub fn run_unplugged(report: &mut Report<'_>) {
    let Some(mem) = Slot::find(id::MEM) else {
        return report.end("mem: the device", Err("it is not there".into()));
    };
    let Region { start, size, usable } = Region::read(mem);
    let places: Vec<u64> = [start, start + usable, start + size - 4096].into();
    for (target, slot) in super::harness::targets() {
        for place in &places {
            let name = format!("{}: a buffer in memory that is not plugged, at {place:#x}", target.name);
            report.case(&name, |_| {
                let mut ring = target.start(slot, 0)?;
                ring.describe(0, *place, 64, 0, 0);
                ring.describe(1, *place, 64, WRITE, 0);
                // A request whose head is where it should be, and its answer is not.
                ring.describe(2, pages(4096), 64, NEXT, 3);
                ring.describe(3, *place, 512, WRITE, 0);
                (0..3).for_each(|head| ring.offer(head));
                slot.notify(target.queue);
                let_it_work();
                works(slot)
            });
        }
        for place in &places {
            report.case(
                &format!("{}: rings in memory that is not plugged, at {place:#x}", target.name),
                |_| {
                    slot.negotiate(VERSION_1);
                    slot.set_queue_to(target.queue, 16, *place, *place + 1024, *place + 2048);
                    slot.go();
                    slot.notify(target.queue);
                    let_it_work();
                    works(slot)
                },
            );
        }
    }
}
