//! What every attack on a device needs: the device in working order before it, and the proof that it works after a reset.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Outcome;
use crate::cpu;
use crate::fuse::Session;
use crate::virtio::{Ring, Slot, VERSION_1, WRITE, id, pages, register};

/// A device that is attacked, and the queue of it that is.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub device: u32,
    pub queue: u32,
}

pub const TARGETS: [Target; 8] = [
    Target { name: "rng", device: id::RNG, queue: 0 },
    Target { name: "fs requests", device: id::FS, queue: 1 },
    Target { name: "fs forget", device: id::FS, queue: 0 },
    Target { name: "balloon", device: id::BALLOON, queue: 2 },
    Target { name: "mem", device: id::MEM, queue: 0 },
    Target { name: "disk", device: id::BLK, queue: 0 },
    Target { name: "nic rx", device: id::NET, queue: 0 },
    Target { name: "nic tx", device: id::NET, queue: 1 },
];

/// The targets that this machine has.
pub fn targets() -> Vec<(Target, Slot)> {
    TARGETS.into_iter().filter_map(|target| Some((target, Slot::find(target.device)?))).collect()
}

impl Target {
    /// The device from a reset to work, with small rings on all of its queues; the attacked one comes back.
    pub fn start(&self, slot: Slot, features: u64) -> Result<Ring, String> {
        if !slot.negotiate(features | VERSION_1) {
            return Err(format!("{} does not accept features {features:#x}", self.name));
        }
        let mut attacked = None;
        for index in 0.. {
            slot.write(register::QUEUE_SELECT, index);
            let most = slot.read(register::QUEUE_SIZE_MAX);
            if most == 0 {
                break;
            }
            let ring = Ring::new(most.min(16) as u16);
            slot.set_queue(index, &ring);
            if index == self.queue {
                attacked = Some(ring);
            }
        }
        slot.go();
        if slot.has_failed() {
            return Err(format!("{} has failed before the attack", self.name));
        }
        attacked.ok_or_else(|| format!("{} has no queue {}", self.name, self.queue))
    }
}

/// Time for a device to do what it will.
pub fn let_it_work() {
    (0..3).for_each(|_| cpu::nap());
}

/// The device answers as it should once it has been reset.
pub fn works(slot: Slot) -> Outcome {
    let device = slot.read(register::DEVICE_ID);
    match device {
        id::RNG => rng_works(slot),
        id::FS => Session::start().map(drop),
        id::MEM => super::memory::mem_works(slot),
        id::BLK => super::devices::disk_works(slot),
        // What it is sent may lead nowhere: it takes the chain.
        _ => takes_chains(slot, device),
    }
}

fn rng_works(slot: Slot) -> Outcome {
    let target = TARGETS[0];
    let mut ring = target.start(slot, 0)?;
    let buffer = pages(64);
    ring.describe(0, buffer, 64, WRITE, 0);
    ring.offer(0);
    slot.notify(0);
    match ring.wait(slot) {
        Some((0, 64)) if (0..64).any(|at| cpu::read8(buffer + at) != 0) => Ok(()),
        other => Err(format!("the rng gives {other:?} after a reset")),
    }
}

fn takes_chains(slot: Slot, device: u32) -> Outcome {
    let Some(target) = TARGETS.iter().rfind(|target| target.device == device) else { return Ok(()) };
    let mut ring = target.start(slot, 0)?;
    // A report of no page, or a packet of 64 zero bytes behind its header.
    let flags = if device == id::BALLOON { WRITE } else { 0 };
    ring.describe(0, pages(128), 76, flags, 0);
    ring.offer(0);
    slot.notify(target.queue);
    match ring.wait(slot) {
        Some((0, _)) => Ok(()),
        other => Err(format!("{} gives {other:?} after a reset", target.name)),
    }
}
