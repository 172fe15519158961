//! The state in which vCPUs begin.

use kvm_bindings::{Msrs, kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno;

use crate::boot::Entry;

/// CR0 in protected mode, with the bit that is always set.
const CR0: u64 = 1 | 1 << 4;

/// RFLAGS with only the bit that is always set.
const RFLAGS: u64 = 1 << 1;

const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEFAULT_TYPE: u32 = 0x2ff;
/// MTRRs are on and all memory is write-back; without that, kernels do not use PAT.
const MTRR_ENABLE_WRITE_BACK: u64 = 1 << 11 | 6;

/// Offsets of the local vector table's entries for the two interrupt pins.
const LAPIC_LINT0: usize = 0x350;
const LAPIC_LINT1: usize = 0x360;
const DELIVERY_MODE: u32 = 7 << 8;
const DELIVERY_NMI: u32 = 4 << 8;
const DELIVERY_EXTERNAL: u32 = 7 << 8;

/// Sets the registers with which the first CPU enters the kernel, as PVH demands: 32-bit protected mode, flat segments,
/// ebx at the start info.
pub fn enter(vcpu: &VcpuFd, entry: Entry) -> Result<(), errno::Error> {
    let mut special = vcpu.get_sregs()?;
    let code = segment(0xb, 1);
    let data = segment(0x3, 1);
    special.cs = code;
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    special.tr = kvm_segment { limit: 0x67, g: 0, db: 0, ..segment(0xb, 0) };
    special.cr0 = CR0;
    special.cr4 = 0;
    vcpu.set_sregs(&special)?;
    vcpu.set_regs(&kvm_regs {
        rip: entry.instruction,
        rbx: entry.start_info,
        rflags: RFLAGS,
        ..Default::default()
    })
}

/// Sets what firmware sets on every CPU.
pub fn set_up(vcpu: &VcpuFd) -> Result<(), errno::Error> {
    let msrs = [(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING), (MSR_MTRR_DEFAULT_TYPE, MTRR_ENABLE_WRITE_BACK)]
        .map(|(index, data)| kvm_msr_entry { index, data, ..Default::default() });
    let msrs = Msrs::from_entries(&msrs).map_err(|_| errno::Error::new(libc::EINVAL))?;
    if vcpu.set_msrs(&msrs)? != msrs.as_slice().len() {
        return Err(errno::Error::new(libc::EINVAL));
    }
    let mut lapic = vcpu.get_lapic()?;
    set_delivery(&mut lapic, LAPIC_LINT0, DELIVERY_EXTERNAL);
    set_delivery(&mut lapic, LAPIC_LINT1, DELIVERY_NMI);
    vcpu.set_lapic(&lapic)
}

fn segment(kind: u8, code_or_data: u8) -> kvm_segment {
    kvm_segment {
        limit: 0xffff_ffff,
        type_: kind,
        present: 1,
        db: 1,
        s: code_or_data,
        g: 1,
        ..Default::default()
    }
}

fn set_delivery(lapic: &mut kvm_lapic_state, offset: usize, mode: u32) {
    for (byte, value) in lapic.regs[offset..offset + 4].iter_mut().zip(0..) {
        let shift = 8 * value;
        let mask = (DELIVERY_MODE >> shift) as u8;
        *byte = (*byte as u8 & !mask | (mode >> shift) as u8 & mask) as _;
    }
}
