//! A vCPU in a template: all of its state that KVM can read.

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events,
    kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};
use vmm_sys_util::errno;

use super::tsc;

/// The time-stamp counter, on which other registers depend.
const TSC: u32 = 0x10;
/// When the local APIC's timer expires, which it takes as a deadline once its mode has been set.
const TSC_DEADLINE: u32 = 0x6e0;

/// Largest number of model-specific registers in a state.
const MAX_MSRS: usize = 1024;

/// Number of model-specific registers that are passed to KVM at a time; it takes up to 256.
const MSRS_AT_ONCE: usize = 128;

/// The request that KVM refuses, and the error.
type Refused = (&'static str, errno::Error);

/// The state of a vCPU.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
pub struct State {
    run: kvm_mp_state,
    general: kvm_regs,
    special: kvm_sregs,
    extended: kvm_xsave,
    extended_control: kvm_xcrs,
    debug: kvm_debugregs,
    local_apic: kvm_lapic_state,
    events: kvm_vcpu_events,
    msrs: Vec<(u32, u64)>,
    /// What the guest's TSC reads minus what the host's reads, if KVM tells. The host's TSC goes on meanwhile, and with
    /// it the clock of a guest that reads the TSC.
    tsc_offset: Option<u64>,
}

impl State {
    /// The state of a vCPU that does not run, with those of the model-specific registers `msrs` that can be read and
    /// written back.
    pub(super) fn of(vcpu: &VcpuFd, msrs: &[u32]) -> Result<Self, Refused> {
        let refused = |what| move |error| (what, error);
        let mut state = Self {
            // This must be read first: it makes the APIC take pending events.
            run: vcpu.get_mp_state().map_err(refused("KVM_GET_MP_STATE"))?,
            general: vcpu.get_regs().map_err(refused("KVM_GET_REGS"))?,
            special: vcpu.get_sregs().map_err(refused("KVM_GET_SREGS"))?,
            extended: vcpu.get_xsave().map_err(refused("KVM_GET_XSAVE"))?,
            extended_control: vcpu.get_xcrs().map_err(refused("KVM_GET_XCRS"))?,
            debug: vcpu.get_debug_regs().map_err(refused("KVM_GET_DEBUGREGS"))?,
            local_apic: vcpu.get_lapic().map_err(refused("KVM_GET_LAPIC"))?,
            events: vcpu.get_vcpu_events().map_err(refused("KVM_GET_VCPU_EVENTS"))?,
            msrs: Vec::new(),
            tsc_offset: tsc::offset(vcpu),
        };
        for index in msrs {
            let mut one = list(&[(*index, 0)])?;
            let is_read = vcpu.get_msrs(&mut one).is_ok_and(|count| count == 1);
            // Some registers can only be read, which must be known before a clone is restored.
            if is_read && vcpu.set_msrs(&one).is_ok_and(|count| count == 1) {
                state.msrs.extend(one.as_slice().first().map(|entry| (*index, entry.data)));
            }
        }
        state.msrs.sort_by_key(|(index, _)| rank(*index));
        Ok(state)
    }

    /// Restores the state to a vCPU whose CPUID has been set.
    pub(super) fn restore(&self, vcpu: &VcpuFd) -> Result<(), Refused> {
        let refused = |what| move |error| (what, error);
        vcpu.set_mp_state(self.run).map_err(refused("KVM_SET_MP_STATE"))?;
        vcpu.set_regs(&self.general).map_err(refused("KVM_SET_REGS"))?;
        vcpu.set_sregs(&self.special).map_err(refused("KVM_SET_SREGS"))?;
        // SAFETY: no feature is enabled whose state is larger than the structure.
        unsafe { vcpu.set_xsave(&self.extended) }.map_err(refused("KVM_SET_XSAVE"))?;
        vcpu.set_xcrs(&self.extended_control).map_err(refused("KVM_SET_XCRS"))?;
        vcpu.set_debug_regs(&self.debug).map_err(refused("KVM_SET_DEBUGREGS"))?;
        // This is set before the deadline of the APIC's timer.
        vcpu.set_lapic(&self.local_apic).map_err(refused("KVM_SET_LAPIC"))?;
        for part in self.msrs.chunks(MSRS_AT_ONCE) {
            let set = vcpu.set_msrs(&list(part)?).map_err(refused("KVM_SET_MSRS"))?;
            if set != part.len() {
                return Err(("KVM_SET_MSRS", errno::Error::new(libc::EINVAL)));
            }
        }
        if let Some(offset) = self.tsc_offset {
            tsc::set_offset(vcpu, offset).map_err(refused("KVM_SET_DEVICE_ATTR"))?;
        }
        vcpu.set_vcpu_events(&self.events).map_err(refused("KVM_SET_VCPU_EVENTS"))
    }

    /// Whether its size is within the limits.
    pub fn is_plausible(&self) -> bool {
        self.msrs.len() <= MAX_MSRS
    }
}

fn rank(index: u32) -> u8 {
    match index {
        TSC => 0,
        TSC_DEADLINE => 2,
        _ => 1,
    }
}

fn list(msrs: &[(u32, u64)]) -> Result<Msrs, Refused> {
    let entries: Vec<_> = msrs
        .iter()
        .map(|(index, data)| kvm_msr_entry { index: *index, data: *data, ..Default::default() })
        .collect();
    Msrs::from_entries(&entries).map_err(|_| ("a list of MSRs", errno::Error::new(libc::ENOMEM)))
}
