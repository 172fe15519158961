//! What CPUID tells the guest: what KVM supports, without the features that a container does not need, and with a
//! topology of its own.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// Leaf 1 ECX: VMX. Nested virtualisation is a large part of KVM's attack surface.
const VMX: u32 = 1 << 5;
/// Leaf 1 ECX: the local APIC's timer can be set to a TSC value. Without it the guest calibrates, which needs a PIT.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX: the CPU runs under a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 EDX: leaf 1 EBX has a number of logical CPUs.
const HTT: u32 = 1 << 28;
/// Leaf 6 EAX: the local APIC's timer never stops.
const ARAT: u32 = 1 << 2;
/// Leaf 0x8000_0001 ECX: SVM, as VMX.
const SVM: u32 = 1 << 2;
/// Leaf 0x8000_0001 ECX: more performance counters, for core and northbridge.
const PERFORMANCE_COUNTERS: u32 = 1 << 23 | 1 << 24;

/// Domain types of leaf 0xb and 0x1f.
const DOMAIN_LOGICAL: u32 = 1;
const DOMAIN_CORE: u32 = 2;

/// The CPUID of CPU `id` in a machine that may have up to `listed` CPUs, all cores of one package.
pub fn of_cpu(supported: &CpuId, id: u8, listed: u8) -> CpuId {
    let mut cpuid = supported.clone();
    let topology = Topology::new(id, listed);
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            0x1 => {
                entry.ecx = entry.ecx & !VMX | TSC_DEADLINE | HYPERVISOR;
                entry.ebx = entry.ebx & 0xff00 | topology.cpus << 16 | topology.id << 24;
                set(&mut entry.edx, HTT, topology.cpus > 1);
            }
            0x4 | 0x8000_001d => topology.describe_cache(entry),
            0x6 => entry.eax |= ARAT,
            // Performance monitoring is not given to guests: no counters here, none in AMD's leaf.
            0xa | 0x8000_0022 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            0xb | 0x1f => topology.describe_domain(entry),
            0x8000_0001 => entry.ecx &= !(SVM | PERFORMANCE_COUNTERS),
            0x8000_0008 => entry.ecx = topology.id_bits << 12 | (topology.cpus - 1),
            // SVM's features.
            0x8000_000a => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (topology.id, topology.id, 0),
            _ => {}
        }
    }
    cpuid
}

struct Topology {
    id: u32,
    cpus: u32,
    /// Number of bits of an APIC ID that distinguish cores.
    id_bits: u32,
}

impl Topology {
    fn new(id: u8, listed: u8) -> Self {
        let cpus = u32::from(listed.max(1));
        Self { id: id.into(), cpus, id_bits: cpus.next_power_of_two().ilog2() }
    }

    /// Leaf 4 (and AMD's equal): which CPUs share a cache. The package shares the third level; each core has the
    /// others.
    fn describe_cache(&self, entry: &mut kvm_cpuid_entry2) {
        let level = entry.eax >> 5 & 7;
        let sharing = if level >= 3 { (1 << self.id_bits) - 1 } else { 0 };
        entry.eax = entry.eax & 0x3fff | sharing << 14;
        if entry.function == 4 {
            entry.eax |= ((1 << self.id_bits) - 1) << 26;
        }
    }

    /// Leaf 0xb: how an APIC ID is composed; subleaf 0 describes threads of a core, subleaf 1 cores of the package.
    fn describe_domain(&self, entry: &mut kvm_cpuid_entry2) {
        let (bits, cpus, domain) = match entry.index {
            0 => (0, 1, DOMAIN_LOGICAL),
            1 => (self.id_bits, self.cpus, DOMAIN_CORE),
            _ => (0, 0, 0),
        };
        entry.eax = bits;
        entry.ebx = cpus;
        entry.ecx = domain << 8 | entry.index & 0xff;
        entry.edx = self.id;
    }
}

fn set(word: &mut u32, bits: u32, on: bool) {
    if on { *word |= bits } else { *word &= !bits }
}

#[cfg(test)]
#[path = "cpuid_test.rs"]
mod tests;
