//! Rings and descriptors that no driver makes, on the queue of every device.

use alloc::format;

use super::harness::{Target, let_it_work, targets, works};
use super::{Outcome, Report};
use crate::cpu;
use crate::virtio::{
    EVENT_IDX, INDIRECT, INDIRECT_FLAG, NEXT, Ring, SLOTS, Slot, VERSION_1, WRITE, describe_at, pages,
    register,
};

/// What an attack does with a ring of 16 or fewer entries (a power of two): it prepares descriptors and makes them available.
type Attack = fn(&mut Ring);

const ATTACKS: [(&str, Attack); 32] = [
    ("a descriptor that leads to itself", |ring| {
        ring.describe(0, pages(64), 64, NEXT, 0);
        ring.offer(0);
    }),
    ("two descriptors that lead to each other", |ring| {
        ring.describe(0, pages(64), 64, NEXT, 1);
        ring.describe(1, pages(64), 64, NEXT, 0);
        ring.offer(0);
    }),
    ("a writable loop", |ring| {
        ring.describe(0, pages(64), 64, NEXT | WRITE, 1);
        ring.describe(1, pages(64), 64, NEXT | WRITE, 0);
        ring.offer(0);
    }),
    ("a next descriptor beyond the table", |ring| {
        ring.describe(0, pages(64), 64, NEXT, 0xffff);
        ring.offer(0);
    }),
    ("a head beyond the table", |ring| {
        ring.offer(0xffff);
    }),
    ("a head just beyond the table", |ring| {
        ring.offer(ring.size);
    }),
    ("a buffer in the hole of devices", |ring| both_ways(ring, 0xd000_0000, 64)),
    ("a buffer on the device's own registers", |ring| both_ways(ring, SLOTS, 64)),
    ("a buffer across the end of memory", |ring| both_ways(ring, end_of_memory() - 32, 64)),
    ("a buffer just beyond the end of memory", |ring| both_ways(ring, end_of_memory(), 64)),
    ("a buffer at the end of the address space", |ring| both_ways(ring, u64::MAX - 31, 64)),
    ("a buffer whose end wraps", |ring| both_ways(ring, u64::MAX, u32::MAX)),
    ("a buffer of 4 GiB", |ring| both_ways(ring, pages(64), u32::MAX)),
    ("a buffer of 2 GiB", |ring| both_ways(ring, pages(64), 1 << 31)),
    ("a buffer of no length", |ring| both_ways(ring, pages(64), 0)),
    ("a buffer of no length outside of memory", |ring| both_ways(ring, u64::MAX, 0)),
    ("readable behind writable", |ring| {
        ring.describe(0, pages(64), 64, NEXT | WRITE, 1);
        ring.describe(1, pages(64), 64, 0, 0);
        ring.offer(0);
    }),
    ("all flags", |ring| {
        ring.describe(0, pages(64), 64, 0xffff, 0);
        ring.offer(0);
    }),
    ("an indirect table outside of memory", |ring| {
        ring.describe(0, 0xd000_0000, 64, INDIRECT_FLAG, 0);
        ring.offer(0);
    }),
    ("an indirect table of no length", |ring| {
        ring.describe(0, pages(64), 0, INDIRECT_FLAG, 0);
        ring.offer(0);
    }),
    ("an indirect table of odd length", |ring| {
        ring.describe(0, pages(64), 23, INDIRECT_FLAG, 0);
        ring.offer(0);
    }),
    ("an indirect table of 4 GiB", |ring| {
        ring.describe(0, pages(64), !15u32, INDIRECT_FLAG, 0);
        ring.offer(0);
    }),
    ("an indirect table in an indirect table", |ring| {
        let (outer, inner) = (pages(64), pages(64));
        describe_at(inner, 0, pages(64), 64, 0, 0);
        describe_at(outer, 0, inner, 16, INDIRECT_FLAG, 0);
        ring.describe(0, outer, 16, INDIRECT_FLAG, 0);
        ring.offer(0);
    }),
    ("an indirect table that leads on", |ring| {
        let table = pages(64);
        describe_at(table, 0, pages(64), 64, NEXT, 0);
        ring.describe(0, table, 16, INDIRECT_FLAG | NEXT, 1);
        ring.describe(1, pages(64), 64, WRITE, 0);
        ring.offer(0);
    }),
    ("an indirect table of 64 Ki entries", |ring| {
        let table = pages(16 << 16);
        let buffer = pages(64);
        for index in 0..=u16::MAX {
            describe_at(table, index, buffer, 1, NEXT, index.wrapping_add(1));
        }
        ring.describe(0, table, 16 << 16, INDIRECT_FLAG, 0);
        ring.offer(0);
    }),
    ("an indirect table that is its own buffer", |ring| {
        let table = pages(64);
        describe_at(table, 0, table, 64, WRITE, 0);
        ring.describe(0, table, 16, INDIRECT_FLAG, 0);
        ring.offer(0);
    }),
    ("more chains than the ring has", |ring| {
        both_ways(ring, pages(64), 64);
        ring.set_available(ring.size + 1);
    }),
    ("an index of chains that jumps by half", |ring| ring.set_available(0x8000)),
    ("an index of chains that goes back", |ring| ring.set_available(0xffff)),
    ("buffers on the rings themselves", |ring| {
        ring.describe(0, ring.used, 256, WRITE, 0);
        ring.describe(1, ring.available, 32, WRITE, 0);
        ring.describe(2, ring.descriptors, 256, WRITE, 0);
        (0..3).for_each(|head| ring.offer(head));
    }),
    ("one chain in every entry", |ring| {
        ring.describe(0, pages(64), 64, WRITE, 0);
        (0..ring.size).for_each(|_| ring.offer(0));
    }),
    ("a chain of all descriptors, each of one byte", |ring| {
        let buffer = pages(64);
        for index in 0..ring.size {
            let flags = if index + 1 < ring.size { NEXT } else { 0 };
            ring.describe(index, buffer + u64::from(index), 1, flags, index + 1);
        }
        ring.offer(0);
    }),
];

/// One chain that the device reads, one that it writes.
fn both_ways(ring: &mut Ring, address: u64, length: u32) {
    ring.describe(0, address, length, 0, 0);
    ring.describe(1, address, length, WRITE, 0);
    ring.offer(0);
    ring.offer(1);
}

/// Where RAM ends below the hole: what is read there is all ones.
pub fn end_of_memory() -> u64 {
    const STEP: u64 = 1 << 20;
    let is_memory = |address: u64| cpu::read64(address) != u64::MAX;
    (16..3072).map(|mib| mib * STEP).find(|address| !is_memory(*address)).unwrap_or(3 << 30)
}

pub fn run(report: &mut Report<'_>) {
    for (target, slot) in targets() {
        for (what, attack) in ATTACKS {
            // Tables of descriptors are looked at where they have been negotiated, and refused where not.
            let indirect = slot.offered() & INDIRECT;
            let features = [Some(0), (indirect != 0 && what.contains("indirect")).then_some(indirect)];
            for features in features.into_iter().flatten() {
                report.case(&format!("{}: {what}, features {features:#x}", target.name), |_| {
                    attempt(target, slot, features | slot.offered() & EVENT_IDX, attack)
                });
            }
        }
        report.case(&format!("{}: reset while it works, 30 times", target.name), |_| storm(target, slot));
        report.case(&format!("{}: rings that change while it works", target.name), |_| change(target, slot));
    }
}

fn attempt(target: Target, slot: Slot, features: u64, attack: Attack) -> Outcome {
    let mut ring = target.start(slot, features)?;
    attack(&mut ring);
    slot.notify(target.queue);
    let_it_work();
    works(slot)
}

fn storm(target: Target, slot: Slot) -> Outcome {
    let buffer = pages(1 << 16);
    for round in 0..30u16 {
        let mut ring = target.start(slot, 0)?;
        for head in 0..ring.size {
            ring.describe(head, buffer, 1 << 12, if round % 2 == 0 { WRITE } else { 0 }, 0);
            ring.offer(head);
        }
        slot.notify(target.queue);
        slot.reset();
    }
    works(slot)
}

fn change(target: Target, slot: Slot) -> Outcome {
    for round in 0..10u32 {
        let mut ring = target.start(slot, 0)?;
        for head in 0..ring.size {
            ring.describe(head, pages(64), 64, WRITE, 0);
            ring.offer(head);
        }
        slot.notify(target.queue);
        for at in 0..64 {
            cpu::write32(ring.descriptors + 4 * at, round.wrapping_mul(0x9e37_79b9) ^ at as u32);
            cpu::write32(ring.used + 4 * (at % 16), u32::MAX - round);
        }
        let_it_work();
    }
    works(slot)
}

/// Where queues lie, and how large they are.
pub fn run_layouts(report: &mut Report<'_>) {
    let good = Ring::new(16);
    let end = end_of_memory();
    let (descriptors, available, used) = (good.descriptors, good.available, good.used);
    let layouts = [
        ("of size 0", 0, descriptors, available, used),
        ("of size 3", 3, descriptors, available, used),
        ("of size 32768", 1 << 15, descriptors, available, used),
        ("of size 65536", 1 << 16, descriptors, available, used),
        ("of size 4 Gi - 1", u32::MAX, descriptors, available, used),
        ("with descriptors at the hole of devices", 16, 0xd000_0000, available, used),
        ("with descriptors across the end of memory", 16, end - 16, available, used),
        ("with descriptors at the end of the address space", 16, u64::MAX - 15, available, used),
        ("with misaligned descriptors", 16, descriptors + 1, available, used),
        ("with available entries outside of memory", 16, descriptors, 0xd000_0000, used),
        ("with available entries at the end of memory", 16, descriptors, end - 2, used),
        ("with misaligned available entries", 16, descriptors, available + 1, used),
        ("with used entries outside of memory", 16, descriptors, available, 0xd000_0000),
        ("with used entries at the end of memory", 16, descriptors, available, end - 4),
        ("with used entries at the end of the address space", 16, descriptors, available, u64::MAX - 3),
        ("with misaligned used entries", 16, descriptors, available, used + 2),
    ];
    for (target, slot) in targets() {
        for (what, size, descriptors, available, used) in layouts {
            report.case(&format!("{}: a queue {what} is refused", target.name), |_| {
                slot.negotiate(VERSION_1);
                slot.set_queue_to(target.queue, size, descriptors, available, used);
                slot.go();
                slot.notify(target.queue);
                if !slot.has_failed() {
                    return Err("the device works with it".into());
                }
                works(slot)
            });
        }
        report.case(&format!("{}: rings on one another", target.name), |_| {
            slot.negotiate(VERSION_1);
            slot.set_queue_to(target.queue, 16, descriptors, descriptors, descriptors);
            slot.go();
            cpu::write32(descriptors, 0x0010_0000);
            slot.notify(target.queue);
            let_it_work();
            works(slot)
        });
        report.case(&format!("{}: a queue that moves while it is in use", target.name), |_| {
            let mut ring = target.start(slot, 0)?;
            slot.set_queue_to(target.queue, 8, 0xd000_0000, 0xd000_0000, 0xd000_0000);
            slot.write(register::QUEUE_READY, 0);
            ring.describe(0, pages(64), 64, WRITE, 0);
            ring.offer(0);
            slot.notify(target.queue);
            let_it_work();
            works(slot)
        });
        report.case(&format!("{}: no queue at all", target.name), |_| {
            slot.negotiate(VERSION_1);
            slot.go();
            (0..4).for_each(|queue| slot.notify(queue));
            let_it_work();
            works(slot)
        });
    }
}
