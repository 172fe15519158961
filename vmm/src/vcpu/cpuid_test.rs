use kvm_bindings::{CpuId, kvm_cpuid_entry2};

use super::of_cpu;

fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, index, eax: !0, ebx: !0, ecx: !0, edx: !0, ..Default::default() }
}

fn one(function: u32, index: u32, id: u8, listed: u8) -> kvm_cpuid_entry2 {
    of_cpu(&CpuId::from_entries(&[leaf(function, index)]).unwrap(), id, listed).as_slice()[0]
}

#[test]
fn a_guest_cannot_start_guests() {
    assert_eq!(one(1, 0, 0, 1).ecx & 1 << 5, 0);
    assert_eq!(one(0x8000_0001, 0, 0, 1).ecx & 1 << 2, 0);
    assert_eq!(one(0x8000_000a, 0, 0, 1).eax, 0);
}

#[test]
fn a_guest_needs_no_timer_but_its_local_apic() {
    let supported = CpuId::from_entries(&[
        kvm_cpuid_entry2 { function: 1, ..Default::default() },
        kvm_cpuid_entry2 { function: 6, ..Default::default() },
    ])
    .unwrap();
    let cpuid = of_cpu(&supported, 0, 1);
    assert_ne!(cpuid.as_slice()[0].ecx & 1 << 24, 0);
    assert_ne!(cpuid.as_slice()[1].eax & 1 << 2, 0);
}

#[test]
fn each_cpu_has_its_apic_id_everywhere() {
    assert_eq!(one(1, 0, 5, 6).ebx >> 24, 5);
    assert_eq!(one(0xb, 1, 5, 6).edx, 5);
    assert_eq!(one(0x8000_001e, 0, 5, 6).eax, 5);
}

#[test]
fn topology_is_one_package_of_cores() {
    assert_eq!(one(1, 0, 0, 6).ebx >> 16 & 0xff, 6);
    let threads = one(0xb, 0, 0, 6);
    assert_eq!((threads.eax, threads.ebx, threads.ecx), (0, 1, 0x100));
    let cores = one(0xb, 1, 0, 6);
    assert_eq!((cores.eax, cores.ebx, cores.ecx), (3, 6, 0x201));
    assert_eq!(one(0xb, 2, 0, 6).ecx, 2);
    assert_eq!(one(0x8000_0008, 0, 0, 6).ecx, 3 << 12 | 5);
    // One CPU does not have several.
    assert_eq!(one(1, 0, 0, 1).edx & 1 << 28, 0);
}

#[test]
fn the_third_level_cache_is_shared_the_first_is_not() {
    let share = |level: u32| {
        let cache = kvm_cpuid_entry2 { function: 4, eax: 1 | level << 5, ..Default::default() };
        of_cpu(&CpuId::from_entries(&[cache]).unwrap(), 0, 6).as_slice()[0].eax >> 14 & 0xfff
    };
    assert_eq!((share(1), share(3)), (0, 7));
}
