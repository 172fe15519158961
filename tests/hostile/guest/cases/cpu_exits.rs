//! What a CPU can do to leave the guest: ports, holes in the address map, MSRs, hypercalls.

use alloc::string::String;

use super::harness::works;
use super::{Outcome, Report};
use crate::cpu;
use crate::virtio::{Slot, id};

/// The keyboard controller's command port, where one value resets the machine.
const RESET_PORT: u16 = 0x64;
/// The serial line, which the outcomes take.
const SERIAL: core::ops::Range<u16> = 0x3f8..0x400;

pub fn run(report: &mut Report<'_>) {
    report.case("reads of every port", |_| {
        ports().for_each(|port| {
            cpu::in8(port);
            cpu::in32(port);
        });
        rng()
    });
    report.case("writes to every port", |_| {
        for port in ports().filter(|port| !SERIAL.contains(port)) {
            // Never what resets the machine.
            let value = if port.abs_diff(RESET_PORT) < 4 { 0 } else { 0xa5 };
            cpu::out8(port, value);
            cpu::out16(port, u16::from(value) << 8);
            cpu::out32(port, u32::from(value) << 16);
        }
        rng()
    });
    report.case("strings to and from ports", |_| {
        let mut bytes = [0; 1024];
        for port in [0x20, 0x60, 0x64, 0x80, 0xcf8, 0xcfc, 0x3f9, 0x3fd, 0xffff] {
            cpu::in_string(port, &mut bytes);
            cpu::out_string(port, &[0; 1024]);
        }
        rng()
    });
    report.case("the serial line's registers", |_| {
        for value in 0..=255u8 {
            for port in [0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3ff] {
                cpu::out8(port, value);
                cpu::in8(port);
            }
        }
        // The divisor latch away again, interrupts off.
        for (port, value) in [(0x3fb, 0x03), (0x3f9, 0), (0x3fc, 0)] {
            cpu::out8(port, value);
        }
        rng()
    });
    report.case("the holes of the address map", |_| {
        let holes =
            (0xc010_0000u64..0xfec0_0000).step_by(0x0051_7000).chain([0xa_0000, 0xc_0000, 0xfffb_c000]);
        for address in holes {
            cpu::write64(address, u64::MAX);
            cpu::write8(address + 3, 1);
            cpu::read32(address);
        }
        rng()
    });
    report.case("far above all memory", |_| {
        for address in (0x3_0000_0000u64..0x4_0000_0000).step_by(0x0771_0000) {
            cpu::write64(address, u64::MAX);
            cpu::read64(address);
        }
        rng()
    });
    report.case("the interrupt controllers", |_| {
        for index in 0..64 {
            cpu::write32(0xfec0_0000, index);
            // Masked, whatever else it says.
            cpu::write32(0xfec0_0010, 0x0001_ffff);
        }
        for at in (0x400u64..0x1000).step_by(16) {
            cpu::read32(0xfee0_0000 + at);
            cpu::write32(0xfee0_0000 + at, u32::MAX);
        }
        rng()
    });
    report.case("MSRs, there or not", |_| {
        let wild = (0..256u32).map(|index| index.wrapping_mul(0x0101_7031));
        // KVM's own, Hyper-V's, and AMD's, less those of long mode and of this program's segments.
        let known = (0x4b56_4d00..0x4b56_4d10u32).chain(0x11..0x13).chain(0x4000_0000..0x4000_0100);
        let amd = (0xc001_0000..0xc001_0140u32).chain(0xc000_0200..0xc000_0210);
        let ours = [0x10, 0x1b, 0x3b, 0x6e0, 0xc000_0080, 0xc000_0100, 0xc000_0101];
        for number in wild.chain(known).chain(amd).filter(|number| !ours.contains(number)) {
            let value = cpu::read_msr(number);
            // An address in the hole of devices, switched on, for what takes addresses.
            cpu::write_msr(number, 0xd000_0001);
            cpu::write_msr(number, u64::MAX);
            cpu::write_msr(number, value);
        }
        rng()
    });
    report.case("hypercalls", |_| {
        for number in (0..32).chain([u64::MAX, 0x4000_0000]).filter(|number| *number != 5) {
            cpu::hypercall(number, u64::MAX);
            cpu::hypercall(number, 0xd000_0000);
        }
        rng()
    });
}

/// All that hardware has been at, and a sample of the others.
fn ports() -> impl Iterator<Item = u16> {
    (0..0x500).chain((0x500..=0xffff).step_by(251)).chain([0xcf8, 0xcfc, 0xffff])
}

fn rng() -> Outcome {
    works(Slot::find(id::RNG).ok_or_else(|| String::from("there is no rng"))?)
}
