//! Registers written out of order, at odd widths, and where there are none.

use alloc::format;
use alloc::string::String;

use super::harness::{let_it_work, targets, works};
use super::{Outcome, Report};
use crate::cpu;
use crate::virtio::{MAX_SLOTS, SLOT_SIZE, SLOTS, Slot, VERSION_1, WRITE, id, pages, register, status};

pub fn run(report: &mut Report<'_>) {
    let mut seen = 0;
    for (target, slot) in targets() {
        // One queue of each device is enough here.
        if seen == target.device {
            continue;
        }
        seen = target.device;
        let name = target.name;
        report.case(&format!("{name}: features that are not offered"), |_| {
            refuses_features(slot, !slot.offered())
        });
        report.case(&format!("{name}: a legacy driver"), |_| refuses_features(slot, !VERSION_1));
        report.case(&format!("{name}: DRIVER_OK before anything else"), |_| {
            slot.reset();
            slot.write(register::STATUS, status::DRIVER_OK);
            fails_and_works(slot)
        });
        report.case(&format!("{name}: DRIVER_OK twice"), |_| {
            target.start(slot, 0)?;
            slot.go();
            slot.go();
            works(slot)
        });
        report.case(&format!("{name}: status bits that are taken back"), |_| {
            target.start(slot, 0)?;
            slot.write(register::STATUS, status::ACKNOWLEDGE);
            fails_and_works(slot)
        });
        report.case(&format!("{name}: all status bits"), |_| {
            slot.reset();
            slot.write(register::STATUS, u32::MAX);
            let_it_work();
            works(slot)
        });
        report.case(&format!("{name}: a queue that is not there"), |_| {
            slot.negotiate(VERSION_1);
            for queue in [7, 64, 0xffff, u32::MAX] {
                slot.set_queue_to(queue, 16, pages(256), pages(256), pages(256));
                if slot.read(register::QUEUE_SIZE_MAX) != 0 || slot.read(register::QUEUE_READY) != 0 {
                    return Err(format!("queue {queue} has a size"));
                }
                slot.notify(queue);
            }
            slot.go();
            works(slot)
        });
        report.case(&format!("{name}: notifications of a device that is not ready"), |_| {
            slot.reset();
            (0..1000).for_each(|queue| slot.notify(queue % 8));
            works(slot)
        });
        report.case(&format!("{name}: a flood of notifications"), |_| {
            target.start(slot, 0)?;
            (0..5000).for_each(|_| slot.notify(target.queue));
            works(slot)
        });
        report.case(&format!("{name}: interrupts acknowledged that never were"), |_| {
            target.start(slot, 0)?;
            slot.write(register::INTERRUPT_ACK, u32::MAX);
            works(slot)
        });
        report.case(&format!("{name}: reads of every offset at every width"), |_| {
            read_everywhere(slot.address());
            works(slot)
        });
        report.case(&format!("{name}: writes of every offset at every width"), |_| {
            write_everywhere(slot.address());
            slot.reset();
            works(slot)
        });
        report.case(&format!("{name}: configuration space"), |_| {
            for at in (register::CONFIG..SLOT_SIZE).step_by(60) {
                cpu::write8(slot.address() + at, 0xff);
                cpu::write64(slot.address() + at, u64::MAX);
                cpu::write16(slot.address() + at + 1, 0xffff);
                cpu::read64(slot.address() + at);
            }
            works(slot)
        });
    }
    report.case("empty slots stay empty", |_| empty_slots());
    report.case("accesses that cross two slots", |_| {
        for slot in 1..MAX_SLOTS {
            let border = SLOTS + slot * SLOT_SIZE;
            cpu::read64(border - 4);
            cpu::read32(border - 2);
        }
        rng()
    });
}

fn rng() -> Outcome {
    works(Slot::find(id::RNG).ok_or_else(|| String::from("there is no rng"))?)
}

fn refuses_features(slot: Slot, features: u64) -> Outcome {
    if slot.negotiate(features) {
        return Err(format!("{features:#x} are accepted"));
    }
    slot.set_queue_to(0, 16, pages(256), pages(256), pages(256));
    slot.go();
    fails_and_works(slot)
}

fn fails_and_works(slot: Slot) -> Outcome {
    if !slot.fails() {
        return Err("the device does not say that it needs a reset".into());
    }
    works(slot)
}

fn read_everywhere(start: u64) {
    for at in start..start + 0x120 {
        cpu::read8(at);
        cpu::read16(at);
        cpu::read32(at);
        cpu::read64(at);
    }
}

fn write_everywhere(start: u64) {
    for at in start..start + 0x120 {
        cpu::write8(at, 0xa5);
        cpu::write16(at, 0xa5a5);
        cpu::write64(at, 0xa5a5_a5a5_a5a5_a5a5);
        // A whole register may start the device, with queues that are nowhere.
        cpu::write32(at, at as u32 ^ 0xa5a5);
    }
}

fn empty_slots() -> Outcome {
    let mut found = 0;
    for slot in (0..MAX_SLOTS).map(Slot) {
        if slot.read(register::DEVICE_ID) != 0 || slot.read(register::MAGIC) == u32::MAX {
            continue;
        }
        found += 1;
        write_everywhere(slot.address());
        read_everywhere(slot.address());
        slot.negotiate(u64::MAX);
        let ring = crate::virtio::Ring::new(16);
        slot.set_queue(0, &ring);
        ring.describe(0, pages(64), 64, WRITE, 0);
        slot.go();
        slot.notify(0);
        if slot.read(register::DEVICE_ID) != 0 || slot.read(register::STATUS) != 0 {
            return Err(format!("slot {} has something now", slot.0));
        }
    }
    if found == 0 {
        return Err("there is no empty slot".into());
    }
    rng()
}
