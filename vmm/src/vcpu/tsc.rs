//! A vCPU's time-stamp counter, as a difference to the host's.

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::{errno, ioctl::ioctl_with_ref, ioctl_iow_nr};

/// Attributes of a vCPU, for which kvm-ioctls has no methods on x86.
mod attribute {
    #![allow(missing_docs)] // The macro makes public functions.
    use super::{KVMIO, ioctl_iow_nr, kvm_device_attr};
    ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
    ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
}

fn attribute_at(offset: *mut u64) -> kvm_device_attr {
    kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: offset as u64,
        flags: 0,
    }
}

/// What the guest's TSC reads minus what the host's reads (wrapping), if KVM can tell.
pub fn offset(vcpu: &VcpuFd) -> Option<u64> {
    let mut offset = 0u64;
    let attribute = attribute_at(&raw mut offset);
    // SAFETY: the attribute is a u64, which KVM writes to `addr`; on failure it writes nothing.
    let got = unsafe { ioctl_with_ref(vcpu, attribute::KVM_GET_DEVICE_ATTR(), &attribute) };
    (got == 0).then_some(offset)
}

/// Sets the difference that [`offset`] reads.
///
/// # Errors
/// KVM refuses.
pub fn set_offset(vcpu: &VcpuFd, mut offset: u64) -> Result<(), errno::Error> {
    let attribute = attribute_at(&raw mut offset);
    // SAFETY: the attribute is a u64, which KVM reads from `addr`.
    match unsafe { ioctl_with_ref(vcpu, attribute::KVM_SET_DEVICE_ATTR(), &attribute) } {
        0 => Ok(()),
        _ => Err(errno::Error::last()),
    }
}
