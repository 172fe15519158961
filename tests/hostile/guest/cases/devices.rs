//! What only disks and network devices can be asked.

use alloc::format;
use alloc::string::String;

use super::harness::{TARGETS, let_it_work, works};
use super::{Outcome, Report};
use crate::cpu;
use crate::virtio::{NEXT, Ring, Slot, WRITE, id, pages, register};

const SECTOR: u64 = 512;
const OK: u8 = 0;
/// No answer yet.
const NONE: u8 = 0xff;

/// Types of requests to a disk.
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

pub fn run_disk(report: &mut Report<'_>) {
    let Some(slot) = Slot::find(id::BLK) else {
        return report.end("disk: the device", Err("it is not there".into()));
    };
    let capacity = u64::from(slot.read(register::CONFIG));
    let requests = [
        ("a read just beyond the end", IN, capacity, 512),
        ("a write just beyond the end", OUT, capacity, 512),
        ("a read across the end", IN, capacity - 1, 1024),
        ("a write across the end", OUT, capacity - 1, 1024),
        ("a read at 8 EiB", IN, u64::MAX / 512, 512),
        ("a write at 8 EiB", OUT, u64::MAX / 512, 512),
        ("a read whose offset wraps", IN, u64::MAX, 512),
        ("a write whose offset wraps", OUT, u64::MAX, 512),
        ("a write whose offset wraps to the start", OUT, 1 << 55, 512),
        ("a request that is none", 0xffff, 0, 512),
        ("zeroes beyond the end", WRITE_ZEROES, u64::MAX, 16),
        ("discarding beyond the end", DISCARD, u64::MAX, 16),
    ];
    for (what, kind, sector, length) in requests {
        report.case(&format!("disk: {what} is refused"), |_| match ask(slot, kind, sector, length, 16)? {
            OK => Err("it is done".into()),
            _ => works(slot),
        });
    }
    for (what, kind, length, header) in [
        ("a read of 511 bytes", IN, 511, 16),
        ("a write of one byte", OUT, 1, 16),
        ("a read of nothing", IN, 0, 16),
        ("a write of nothing", OUT, 0, 16),
        ("a flush with data", FLUSH, 512, 16),
        ("a serial number of one byte", GET_ID, 1, 16),
        ("a serial number of 64 KiB", GET_ID, 1 << 16, 16),
        ("a header of one byte", IN, 512, 1),
        ("a header of 4 KiB", IN, 512, 4096),
    ] {
        report.case(&format!("disk: {what}"), |_| {
            let _ = ask(slot, kind, 0, length, header);
            works(slot)
        });
    }
    report.case("disk: no place for the outcome", |_| {
        let mut ring = TARGETS[5].start(slot, 0)?;
        ring.describe(0, pages(16), 16, 0, 0);
        ring.offer(0);
        slot.notify(0);
        let_it_work();
        works(slot)
    });
    report.case("disk: a write to what is read-only", |_| {
        let readonly = slot.offered() & 1 << 5 != 0;
        match (readonly, ask(slot, OUT, 0, 512, 16)?) {
            (true, OK) => Err("it is done".into()),
            _ => works(slot),
        }
    });
}

/// The status that the device gives; `NONE` where it has failed.
fn ask(slot: Slot, kind: u32, sector: u64, length: u32, header_length: u32) -> Result<u8, String> {
    let mut ring = TARGETS[5].start(slot, 0)?;
    let (header, data, status) = (pages(4096), pages(1 << 16), pages(1));
    cpu::write32(header, kind);
    cpu::write64(header + 8, sector);
    cpu::write8(status, NONE);
    let flags = if matches!(kind, OUT | DISCARD | WRITE_ZEROES) { 0 } else { WRITE };
    if matches!(kind, DISCARD | WRITE_ZEROES) {
        cpu::write64(data, sector);
        cpu::write32(data + 8, u32::MAX);
    }
    ring.describe(0, header, header_length, NEXT, 1);
    ring.describe(1, data, length, flags | NEXT, 2);
    ring.describe(2, status, 1, WRITE, 0);
    ring.offer(0);
    slot.notify(0);
    ring.wait(slot);
    Ok(cpu::read8(status))
}

pub fn disk_works(slot: Slot) -> Outcome {
    match ask(slot, IN, 0, SECTOR as u32, 16)? {
        OK => Ok(()),
        status => Err(format!("a read gives {status} after a reset")),
    }
}

pub fn run_nic(report: &mut Report<'_>) {
    let Some(slot) = Slot::find(id::NET) else {
        return report.end("nic: the device", Err("it is not there".into()));
    };
    // Flags, kind of segmentation, length of headers, size of segments, where the checksum starts and is put.
    let headers: [(&str, u8, u8, u16, u16, u16, u16); 10] = [
        ("of all ones", 0xff, 0xff, 0xffff, 0xffff, 0xffff, 0xffff),
        ("with a checksum beyond the packet", 1, 0, 0, 0, 0xfff0, 0xfff0),
        ("with a checksum in the header", 1, 0, 0, 0, 0, 0),
        ("with segments of no size", 1, 1, 54, 0, 34, 16),
        ("with segments of one byte", 1, 1, 54, 1, 34, 16),
        ("with headers longer than the packet", 1, 1, 0xffff, 1400, 34, 16),
        ("with a segmentation that there is not", 0, 77, 0, 0, 0, 0),
        ("with UDP segments of IPv6", 1, 5, 62, 8, 54, 6),
        ("with ECN and nothing else", 0, 0x80, 0, 0, 0, 0),
        ("that needs no checksum, and segments", 2, 4, 74, 16, 0, 0),
    ];
    for (what, flags, segmentation, header, size, start, offset) in headers {
        report.case(&format!("nic: a packet header {what}"), |_| {
            for features in [0, slot.offered() & !(1 << 34)] {
                let mut ring = TARGETS[7].start(slot, features)?;
                let packet = pages(1 << 16);
                cpu::write8(packet, flags);
                cpu::write8(packet + 1, segmentation);
                for (at, field) in [(2, header), (4, size), (6, start), (8, offset)] {
                    cpu::write16(packet + at, field);
                }
                for length in [12, 13, 26, 90, 1526, 65_000] {
                    send(&mut ring, slot, packet, length);
                }
            }
            works(slot)
        });
    }
    for length in [0, 1, 9, 11, 65_535, 1 << 20] {
        report.case(&format!("nic: a packet of {length} bytes with its header"), |_| {
            let mut ring = TARGETS[7].start(slot, 0)?;
            send(&mut ring, slot, pages(1 << 20), length);
            works(slot)
        });
    }
    report.case("nic: buffers to receive that hold nothing", |_| {
        let mut ring = TARGETS[6].start(slot, 0)?;
        for head in 0..ring.size {
            ring.describe(head, pages(16), u32::from(head) % 13, WRITE, 0);
            ring.offer(head);
        }
        slot.notify(0);
        let_it_work();
        works(slot)
    });
    report.case("nic: commands that there are not, and pairs of queues", |_| {
        for (class, command, pairs) in
            [(4, 0, 0u16), (4, 0, 1), (4, 0, 0xffff), (4, 9, 1), (0, 0, 1), (0xff, 0xff, 0xffff)]
        {
            let Some(control) = control_queue(slot) else { return Ok(()) };
            let target = super::harness::Target { queue: control, ..TARGETS[6] };
            let mut ring = target.start(slot, slot.offered())?;
            let buffer = pages(64);
            cpu::write8(buffer, class);
            cpu::write8(buffer + 1, command);
            cpu::write16(buffer + 2, pairs);
            ring.describe(0, buffer, 4, NEXT, 1);
            ring.describe(1, buffer + 32, 1, WRITE, 0);
            ring.describe(2, buffer, 1, 0, 0);
            ring.offer(0);
            ring.offer(2);
            slot.notify(control);
            let_it_work();
        }
        works(slot)
    });
}

/// The last queue.
fn control_queue(slot: Slot) -> Option<u32> {
    let has = |index: &u32| {
        slot.write(register::QUEUE_SELECT, *index);
        slot.read(register::QUEUE_SIZE_MAX) != 0
    };
    (0..64).take_while(has).last().filter(|last| *last > 1)
}

fn send(ring: &mut Ring, slot: Slot, packet: u64, length: u32) {
    ring.describe(0, packet, length, 0, 0);
    ring.offer(0);
    slot.notify(1);
    let_it_work();
    while ring.take().is_some() {}
}
