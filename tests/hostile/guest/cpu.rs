//! Instructions that Rust has no words for.

use core::arch::asm;
use core::arch::x86_64::_rdtsc;

use crate::entry;

/// TSC ticks that are taken for a millisecond. Hosts differ; nothing here needs to be exact.
const TICKS_PER_MS: u64 = 2_500_000;

/// The local APIC, in physical addresses.
const LOCAL_APIC: u64 = 0xfee0_0000;

/// Writes a byte, word or double word to a port.
pub fn out8(port: u16, value: u8) {
    // SAFETY: nothing of this guest's memory changes by a port.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack)) };
}

pub fn out16(port: u16, value: u16) {
    // SAFETY: as in `out8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack)) };
}

pub fn out32(port: u16, value: u32) {
    // SAFETY: as in `out8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack)) };
}

pub fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: as in `out8`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack)) };
    value
}

pub fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `out8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack)) };
    value
}

/// `rep outsb`.
pub fn out_string(port: u16, bytes: &[u8]) {
    // SAFETY: it reads `bytes`.
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rcx") bytes.len() => _, inout("rsi") bytes.as_ptr() => _,
             options(nostack));
    }
}

/// `rep insb`.
pub fn in_string(port: u16, bytes: &mut [u8]) {
    // SAFETY: it fills `bytes`.
    unsafe {
        asm!("rep insb", in("dx") port, inout("rcx") bytes.len() => _, inout("rdi") bytes.as_mut_ptr() => _,
             options(nostack));
    }
}

/// Writes a model-specific register; one that is not there faults, which is passed over.
pub fn write_msr(number: u32, value: u64) {
    let resume = entry::RESUME.as_ptr();
    // SAFETY: a fault goes on behind the instruction. Those registers that would change this program are not written.
    unsafe {
        asm!("lea {tmp}, [rip + 2f]", "mov [{resume}], {tmp}", "wrmsr", "2:", "mov qword ptr [{resume}], 0",
             tmp = out(reg) _, resume = in(reg) resume, in("ecx") number, in("eax") value as u32,
             in("edx") (value >> 32) as u32);
    }
}

/// Reads a model-specific register; 0 where there is none.
pub fn read_msr(number: u32) -> u64 {
    let resume = entry::RESUME.as_ptr();
    let (low, high): (u32, u32);
    // SAFETY: a fault goes on behind the instruction.
    unsafe {
        asm!("lea {tmp}, [rip + 2f]", "mov [{resume}], {tmp}", "rdmsr", "2:", "mov qword ptr [{resume}], 0",
             tmp = out(reg) _, resume = in(reg) resume, in("ecx") number, inout("eax") 0 => low,
             inout("edx") 0 => high);
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Asks the hypervisor for something.
pub fn hypercall(number: u64, argument: u64) -> u64 {
    let resume = entry::RESUME.as_ptr();
    let result;
    // SAFETY: a fault goes on behind the instruction, and no call that KVM knows writes to the addresses used here.
    unsafe {
        // Named registers: any might be rbx.
        asm!("push rbx", "lea r8, [rip + 2f]", "mov [r9], r8", "mov rbx, rcx", "vmmcall", "2:",
             "mov qword ptr [r9], 0", "pop rbx",
             out("r8") _, in("r9") resume, inout("rax") number => result, in("rcx") argument,
             in("rdx") argument, in("rsi") argument);
    }
    result
}

pub fn now() -> u64 {
    // SAFETY: every x86-64 processor has it.
    unsafe { _rdtsc() }
}

pub fn in_ms(milliseconds: u64) -> u64 {
    now() + milliseconds * TICKS_PER_MS
}

/// The timer interrupts at [`entry::TIMER`], once for each [`nap`].
pub fn start_timer() {
    const SPURIOUS: u64 = 0xf0;
    const TIMER: u64 = 0x320;
    const DIVIDE: u64 = 0x3e0;
    const LINT0: u64 = 0x350;
    write32(LOCAL_APIC + SPURIOUS, 0x1ff);
    write32(LOCAL_APIC + TIMER, entry::TIMER.into());
    write32(LOCAL_APIC + DIVIDE, 0b1011);
    // The devices' interrupts come by the old controller, whose vectors are those of faults: masked.
    write32(LOCAL_APIC + LINT0, 1 << 16);
}

/// Lets the host work for a millisecond.
pub fn nap() {
    nap_for(1000);
}

/// Lets the host work for so many microseconds.
pub fn nap_for(microseconds: u32) {
    const INITIAL_COUNT: u64 = 0x380;
    // KVM's local APIC counts nanoseconds.
    write32(LOCAL_APIC + INITIAL_COUNT, microseconds * 1000);
    entry::halt();
}

/// Never goes on.
pub fn halt() -> ! {
    loop {
        // SAFETY: with interrupts off nothing ends it.
        unsafe { asm!("cli", "hlt", options(nostack)) };
    }
}

/// Resets the machine, as Linux does that is told to by `reboot=k`.
pub fn reset() -> ! {
    out8(0x64, 0xfe);
    halt()
}

pub fn read32(address: u64) -> u32 {
    // SAFETY: every address that this program uses is mapped, and what is not memory has no Rust value in it.
    unsafe { (address as *const u32).read_volatile() }
}

pub fn write32(address: u64, value: u32) {
    // SAFETY: as in `read32`; callers write to registers, or to memory that they have for this.
    unsafe { (address as *mut u32).write_volatile(value) };
}

pub fn read8(address: u64) -> u8 {
    // SAFETY: as in `read32`.
    unsafe { (address as *const u8).read_volatile() }
}

pub fn write8(address: u64, value: u8) {
    // SAFETY: as in `write32`.
    unsafe { (address as *mut u8).write_volatile(value) };
}

pub fn read16(address: u64) -> u16 {
    // SAFETY: as in `read32`.
    unsafe { (address as *const u16).read_volatile() }
}

pub fn write16(address: u64, value: u16) {
    // SAFETY: as in `write32`.
    unsafe { (address as *mut u16).write_volatile(value) };
}

pub fn read64(address: u64) -> u64 {
    // SAFETY: as in `read32`.
    unsafe { (address as *const u64).read_volatile() }
}

pub fn write64(address: u64, value: u64) {
    // SAFETY: as in `write32`.
    unsafe { (address as *mut u64).write_volatile(value) };
}
