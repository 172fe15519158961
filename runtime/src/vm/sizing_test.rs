use super::*;
use proptest::prelude::*;

const SIZE: VmSize = VmSize {
    mib: 0,
    default_mib: 2048,
    fixed_mib: None,
    pod: Pod { demand: NONE, overhead: None },
    vcpus: 0,
    default_vcpus: 4,
    most_vcpus: 6,
    fixed_vcpus: None,
    class_mib: 0,
};
const NONE: Demand = Demand { memory: None, cpus: None };

fn memory(mib: u64) -> Demand {
    Demand { memory: Some(mib * MIB), ..NONE }
}

#[test]
fn a_limit_is_met_in_full() {
    assert_eq!(SIZE.wanted_mib(memory(512), &[]), 512 + 8 + 96);
    assert_eq!(SIZE.wanted_mib(NONE, &[]), 2048);
    assert_eq!(SIZE.wanted_mib(memory(1), &[]), 128);
    assert_eq!(VmSize { fixed_mib: Some(300), ..SIZE }.wanted_mib(memory(512), &[memory(512)]), 300);
}

#[test]
fn members_limits_add_up() {
    assert_eq!(SIZE.wanted_mib(NONE, &[memory(512)]), 2048, "the sandbox has no limit");
    assert_eq!(SIZE.wanted_mib(NONE, &[memory(1024), memory(1024)]), 2048 + 32 + 96);
    assert_eq!(SIZE.wanted_mib(memory(64), &[memory(64)]), 128 + 2 + 96);
    assert_eq!(SIZE.wanted_mib(memory(64), &[NONE]), 2048);
}

#[test]
fn a_pods_annotations_go_before_its_sandboxs_own_limits() {
    let pod = |overhead| VmSize { pod: Pod { demand: memory(256), overhead }, ..SIZE };
    assert_eq!(pod(None).wanted_mib(NONE, &[]), 256 + 4 + 96);
    assert_eq!(pod(None).wanted_mib(NONE, &[memory(128), memory(128)]), 256 + 4 + 96);
    assert_eq!(pod(None).wanted_mib(NONE, &[memory(512)]), 512 + 8 + 96);
    assert_eq!(pod(None).wanted_mib(NONE, &[NONE]), 2048);
    assert_eq!(pod(Some(160 * MIB)).wanted_mib(NONE, &[]), 256 + 4 + 96, "the VMM's share");
    assert_eq!(pod(Some(1024 * MIB)).wanted_mib(NONE, &[]), 256 + 4 + 1024 - 128);
}

#[test]
fn quotas_are_rounded_up_to_cpus() {
    let cpus = |cpus| Demand { cpus: Some(cpus), ..NONE };
    assert_eq!(SIZE.wanted_vcpus(NONE, &[]), 4);
    assert_eq!(SIZE.wanted_vcpus(cpus(100), &[]), 1);
    assert_eq!(SIZE.wanted_vcpus(cpus(1001), &[]), 2);
    assert_eq!(SIZE.wanted_vcpus(cpus(1500), &[cpus(1500)]), 3);
    assert_eq!(SIZE.wanted_vcpus(cpus(1500), &[NONE]), 4);
    assert_eq!(SIZE.wanted_vcpus(cpus(90_000), &[]), 6, "the most");
    let pod = VmSize { pod: Pod { demand: cpus(2000), overhead: None }, ..SIZE };
    assert_eq!((pod.wanted_vcpus(NONE, &[]), pod.wanted_vcpus(NONE, &[cpus(1000), cpus(1000)])), (2, 2));
    assert_eq!(VmSize { fixed_vcpus: Some(3), ..SIZE }.wanted_vcpus(cpus(500), &[NONE]), 3);
}

#[test]
fn the_hosts_limit_is_kept() {
    assert_eq!(within(2048, Some(1024 * MIB)), Ok(1024 - 128));
    assert_eq!(within(512, Some(1024 * MIB)), Ok(512));
    let error = within(2048, Some(64 * MIB)).unwrap_err().to_string();
    assert!(error.starts_with("no memory for the VM") && error.contains("64 MiB"), "{error}");
}

#[test]
fn a_quota_is_a_part_of_a_cpu() {
    assert_eq!((cpus(50_000, 100_000), cpus(250_000, 100_000), cpus(1, 1_000_000)), (500, 2500, 1));
    assert_eq!(cpus(u64::MAX, 0), u64::MAX);
}

proptest! {
    #[test]
    fn never_below_the_least_nor_above_the_host(
        limits in prop::collection::vec(prop::option::of(any::<u64>()), 0..4),
        own in prop::option::of(any::<u64>()),
        overhead in prop::option::of(any::<u64>()),
        default_mib in 1u32..,
        host in prop::option::of(any::<u64>()),
    ) {
        let members: Vec<Demand> = limits.iter().map(|memory| Demand { memory: *memory, cpus: None }).collect();
        let size = VmSize { default_mib, pod: Pod { demand: NONE, overhead }, ..SIZE };
        let wanted = size.wanted_mib(Demand { memory: own, cpus: None }, &members);
        prop_assert!(u64::from(wanted) >= MIN_MIB);
        if let Ok(mib) = within(wanted, host) {
            prop_assert!(u64::from(mib) >= MIN_MIB);
            if let Some(host) = host {
                prop_assert!(host_limit_bytes(mib) <= host);
            }
        }
    }
}
