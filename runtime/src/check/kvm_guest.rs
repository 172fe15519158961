//! A throw-away guest of two dozen instructions: long mode with paging, an exception, the extended processor state.
//! These are what a Linux kernel executes first and what incomplete nested virtualisation has been seen to break.

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

/// The port that the guest reports on.
const PORT: u8 = 0xf1;

/// Exits that the guest may cause besides its reports; with more, the check gives up.
const MAX_EXITS: usize = 64;

const PML4: usize = 0x1000;
const PDPT: usize = 0x2000;
const PD: usize = 0x3000;
const GDT: usize = 0x4000;
const IDT: usize = 0x5000;
const CODE: usize = 0x6000;
const HANDLER: usize = 0x7000;
const DATA: usize = 0x8000;
const STACK_TOP: usize = 0xa000;
const XSAVE_AREA: usize = 0xb000;
const SIZE: usize = 0x10000;

const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;

/// XCR0: x87 and SSE state.
const STATE_COMPONENTS: u8 = 0b11;

/// One thing that the guest tries; it reports the stage's number afterwards.
pub struct Stage {
    /// Its name in the report.
    pub name: &'static str,
    instructions: &'static [u8],
}

/// What the guest tries, in order.
#[rustfmt::skip]
pub const STAGES: [Stage; 5] = [
    Stage { name: "long mode", instructions: &[
        0x48, 0x31, 0xc0,                                               // xor rax, rax
    ] },
    Stage { name: "paging", instructions: &[
        0x48, 0x89, 0x04, 0x25, 0x00, (DATA >> 8) as u8, 0, 0,          // mov [DATA], rax
    ] },
    Stage { name: "int3", instructions: &[
        0xcc,                                                           // int3
    ] },
    Stage { name: "XSAVE", instructions: &[
        0x31, 0xc9,                                                     // xor ecx, ecx
        0x31, 0xd2,                                                     // xor edx, edx
        0xb8, STATE_COMPONENTS, 0, 0, 0,                                // mov eax, STATE_COMPONENTS
        0x0f, 0x01, 0xd1,                                               // xsetbv
        0x0f, 0xae, 0x24, 0x25, 0x00, (XSAVE_AREA >> 8) as u8, 0, 0,    // xsave [XSAVE_AREA]
    ] },
    Stage { name: "XRSTOR", instructions: &[
        0x31, 0xd2,                                                     // xor edx, edx
        0xb8, STATE_COMPONENTS, 0, 0, 0,                                // mov eax, STATE_COMPONENTS
        0x0f, 0xae, 0x2c, 0x25, 0x00, (XSAVE_AREA >> 8) as u8, 0, 0,    // xrstor [XSAVE_AREA]
    ] },
];

/// Returns from int3.
const INT3_HANDLER: &[u8] = &[
    0x48, 0xcf, // iretq
];

const HLT: u8 = 0xf4;

/// Address of a stage's first instruction; after the last stage, the address of the final hlt.
fn stage_start(stage: usize) -> usize {
    const REPORT: usize = 4;
    CODE + STAGES[..stage].iter().map(|stage| stage.instructions.len() + REPORT).sum::<usize>()
}

/// The guest's program.
fn program() -> Vec<u8> {
    let mut program = Vec::new();
    for (number, stage) in (0u8..).zip(&STAGES) {
        program.extend_from_slice(stage.instructions);
        // mov al, number; out PORT, al
        program.extend_from_slice(&[0xb0, number, 0xe6, PORT]);
    }
    program.push(HLT);
    program
}

/// The guest's memory.
#[repr(C, align(4096))]
struct Memory([u8; SIZE]);

impl Memory {
    fn new() -> Box<Self> {
        const PRESENT_WRITABLE: u64 = 0b11;
        const LARGE_PAGE: u64 = 1 << 7;
        let mut memory = Box::new(Self([0; SIZE]));
        memory.put(PML4, &(PDPT as u64 | PRESENT_WRITABLE).to_le_bytes());
        memory.put(PDPT, &(PD as u64 | PRESENT_WRITABLE).to_le_bytes());
        // An identity mapping of the first 2 MiB.
        memory.put(PD, &(PRESENT_WRITABLE | LARGE_PAGE).to_le_bytes());
        // 64-bit code and data, ring 0 (Intel SDM 3A, 3.4.5).
        memory.put(GDT + usize::from(CODE_SELECTOR), &0x00af_9b00_0000_ffff_u64.to_le_bytes());
        memory.put(GDT + usize::from(DATA_SELECTOR), &0x00cf_9300_0000_ffff_u64.to_le_bytes());
        memory.put(IDT + 3 * 16, &interrupt_gate(HANDLER as u64));
        memory.put(CODE, &program());
        memory.put(HANDLER, INT3_HANDLER);
        memory
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// A 64-bit interrupt gate, ring 0 (Intel SDM 3A, 6.14.1).
fn interrupt_gate(handler: u64) -> [u8; 16] {
    const PRESENT_INTERRUPT_GATE: u128 = 0x8e00;
    let handler = u128::from(handler);
    let gate = (handler & 0xffff)
        | u128::from(CODE_SELECTOR) << 16
        | PRESENT_INTERRUPT_GATE << 32
        | (handler >> 16 & 0xffff_ffff_ffff) << 48;
    gate.to_le_bytes()
}

/// The result of one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The stage worked.
    Passed(u8),
    /// KVM could not run the stage, and the guest was moved to the next one.
    Failed(u8),
}

/// Runs the guest to its end and reports each stage to `tell`.
///
/// # Errors
/// Why KVM cannot run it, in words for a person.
pub fn run(tell: &mut dyn FnMut(Progress)) -> Result<(), String> {
    let failed = |what: &'static str| move |cause: kvm_ioctls::Error| format!("{what}: {cause}");
    let kvm = Kvm::new().map_err(failed("cannot open /dev/kvm"))?;
    let vm = kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?;
    let memory = Memory::new();
    let vcpu = set_up(&kvm, &vm, &memory).map_err(|(what, cause)| failed(what)(cause))?;
    execute(vcpu, tell)
}

fn set_up(kvm: &Kvm, vm: &VmFd, memory: &Memory) -> Result<VcpuFd, (&'static str, kvm_ioctls::Error)> {
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: SIZE as u64,
        userspace_addr: (&raw const *memory) as u64,
    };
    // SAFETY: the memory is page-aligned, has this size and outlives the vCPU; only the guest writes to it.
    unsafe { vm.set_user_memory_region(region) }.map_err(|e| ("KVM_SET_USER_MEMORY_REGION", e))?;
    let vcpu = vm.create_vcpu(0).map_err(|e| ("KVM_CREATE_VCPU", e))?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(|e| ("KVM_GET_SUPPORTED_CPUID", e))?;
    vcpu.set_cpuid2(&cpuid).map_err(|e| ("KVM_SET_CPUID2", e))?;

    let mut sregs = vcpu.get_sregs().map_err(|e| ("KVM_GET_SREGS", e))?;
    let segment = |selector, long| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: if long { 0xb } else { 0x3 },
        present: 1,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..kvm_segment::default()
    };
    sregs.cs = segment(CODE_SELECTOR, true);
    let data = segment(DATA_SELECTOR, false);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    (sregs.gdt.base, sregs.gdt.limit) = (GDT as u64, 0x17);
    (sregs.idt.base, sregs.idt.limit) = (IDT as u64, 0xfff);
    sregs.cr3 = PML4 as u64;
    // PE, MP, ET, NE, WP, PG.
    sregs.cr0 = 0x8001_0033;
    // PAE, OSFXSR, OSXMMEXCPT, OSXSAVE.
    sregs.cr4 = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 18;
    // LME, LMA.
    sregs.efer = 1 << 8 | 1 << 10;
    vcpu.set_sregs(&sregs).map_err(|e| ("KVM_SET_SREGS", e))?;
    let regs = kvm_regs { rip: CODE as u64, rsp: STACK_TOP as u64, rflags: 1 << 1, ..kvm_regs::default() };
    vcpu.set_regs(&regs).map_err(|e| ("KVM_SET_REGS", e))?;
    Ok(vcpu)
}

fn execute(mut vcpu: VcpuFd, tell: &mut dyn FnMut(Progress)) -> Result<(), String> {
    for _ in 0..MAX_EXITS {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(port, &[stage])) if port == u16::from(PORT) => tell(Progress::Passed(stage)),
            Ok(VcpuExit::Hlt) => return Ok(()),
            Ok(VcpuExit::InternalError) => tell(Progress::Failed(skip_stage(&vcpu)?)),
            Ok(VcpuExit::Shutdown) => return Err("the guest's processor shut down (triple fault)".to_owned()),
            Ok(other) => return Err(format!("unexpected exit {other:?}")),
            Err(cause) if cause.errno() == libc::EINTR || cause.errno() == libc::EAGAIN => {}
            Err(cause) => return Err(format!("KVM_RUN: {cause}")),
        }
    }
    Err("the guest did not end".to_owned())
}

/// Moves the guest past the stage that it is in; returns which that was.
fn skip_stage(vcpu: &VcpuFd) -> Result<u8, String> {
    let failed = |cause: kvm_ioctls::Error| format!("KVM_EXIT_INTERNAL_ERROR, and then: {cause}");
    let mut regs = vcpu.get_regs().map_err(failed)?;
    let stage = (0u8..)
        .take(STAGES.len())
        .find(|stage| (regs.rip as usize) < stage_start(usize::from(*stage) + 1))
        .filter(|_| regs.rip as usize >= CODE)
        .ok_or_else(|| format!("KVM_EXIT_INTERNAL_ERROR at {:#x}", regs.rip))?;
    regs.rip = stage_start(usize::from(stage) + 1) as u64;
    vcpu.set_regs(&regs).map_err(failed)?;
    Ok(stage)
}

#[cfg(test)]
#[path = "kvm_guest_test.rs"]
mod tests;
