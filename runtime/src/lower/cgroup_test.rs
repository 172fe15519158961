use super::*;
use proptest::prelude::*;

fn limits(json: &str) -> Result<(Limits, Vec<String>), SpecError> {
    let resources: LinuxResources = serde_json::from_str(json).unwrap();
    let mut warnings = Vec::new();
    let limits = super::limits(&resources, &mut warnings)?;
    Ok((limits, warnings))
}

fn guest(limits: &Limits, file: &str) -> Option<String> {
    limits.guest.iter().find(|(name, _)| name == file).map(|(_, value)| value.clone())
}

#[test]
fn shares_map_their_ends_and_their_default() {
    assert_eq!(weight(2), 1);
    assert_eq!(weight(1024), 100);
    assert_eq!(weight(262_144), 10_000);
    assert_eq!(weight(0), 1);
    assert_eq!(weight(u64::MAX), 10_000);
}

#[test]
fn memory_goes_to_the_guest_and_sizes_the_vm() {
    let (limits, _) = limits(r#"{"memory":{"limit":1048576,"swap":2097152,"reservation":524288}}"#).unwrap();
    assert_eq!(limits.demand.memory, Some(1 << 20));
    assert_eq!(guest(&limits, "memory.max").as_deref(), Some("1048576"));
    assert_eq!(guest(&limits, "memory.low").as_deref(), Some("524288"));
    assert_eq!(guest(&limits, "memory.swap.max").as_deref(), Some("1048576"));
}

#[test]
fn unlimited_is_max() {
    let (limits, _) =
        limits(r#"{"memory":{"limit":-1},"pids":{"limit":-1},"cpu":{"quota":-1,"period":50000}}"#).unwrap();
    assert_eq!(limits.demand.memory, None);
    assert_eq!(guest(&limits, "memory.max").as_deref(), Some("max"));
    assert_eq!(guest(&limits, "pids.max").as_deref(), Some("max"));
    assert_eq!(guest(&limits, "cpu.max").as_deref(), Some("max 50000"));
}

#[test]
fn what_is_not_given_is_left_as_it_is() {
    let (limits, _) = limits(
        r#"{"memory":{"limit":0},"pids":{"limit":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":""},"blockIO":{}}"#,
    )
    .unwrap();
    assert_eq!((limits.guest.len(), limits.host.values.len()), (0, 0));
}

#[test]
fn huge_pages_are_limited_in_the_guest() {
    let (limits, warnings) =
        limits(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304},{"pageSize":"1GB","limit":-1}]}"#)
            .unwrap();
    assert_eq!(guest(&limits, "hugetlb.2MB.max").as_deref(), Some("4194304"));
    assert_eq!(guest(&limits, "hugetlb.2MB.rsvd.max").as_deref(), Some("4194304"));
    assert_eq!(guest(&limits, "hugetlb.1GB.max").as_deref(), Some("max"));
    assert_eq!(warnings, [] as [&str; 0]);
}

#[test]
fn cpu_sets_are_the_hosts() {
    let (limits, _) = limits(r#"{"cpu":{"shares":1024,"cpus":"0-1","mems":"0","quota":20000}}"#).unwrap();
    let host: Vec<_> = limits.host.values.iter().map(|(file, value)| (*file, value.as_str())).collect();
    assert_eq!(host, [("cpu.weight", "100"), ("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]);
    assert_eq!(guest(&limits, "cpu.max").as_deref(), Some("20000 100000"));
    assert_eq!(guest(&limits, "cpuset.cpus"), None);
}

#[test]
fn mistakes_are_named() {
    for (json, path) in [
        (r#"{"memory":{"limit":-5}}"#, "linux.resources.memory.limit"),
        (r#"{"memory":{"limit":4096}}"#, "linux.resources.memory.limit"),
        (r#"{"memory":{"limit":1048576,"swap":50}}"#, "linux.resources.memory.swap"),
        (r#"{"memory":{"swap":50}}"#, "linux.resources.memory.swap"),
        (r#"{"blockIO":{"weight":5}}"#, "linux.resources.blockIO.weight"),
        (
            r#"{"hugepageLimits":[{"pageSize":"../MB","limit":1}]}"#,
            "linux.resources.hugepageLimits[0].pageSize",
        ),
        (r#"{"memory":{"swappiness":101}}"#, "linux.resources.memory.swappiness"),
        (r#"{"cpu":{"cpus":"a"}}"#, "linux.resources.cpu.cpus"),
        (r#"{"cpu":{"cpus":"3-1"}}"#, "linux.resources.cpu.cpus"),
        (r#"{"cpu":{"mems":"-"}}"#, "linux.resources.cpu.mems"),
        (r#"{"cpu":{"idle":2}}"#, "linux.resources.cpu.idle"),
        (r#"{"cpu":{"quota":5000,"burst":5001}}"#, "linux.resources.cpu.burst"),
        (r#"{"cpu":{"period":1}}"#, "linux.resources.cpu.period"),
        (r#"{"cpu":{"quota":5}}"#, "linux.resources.cpu.quota"),
        (r#"{"unified":{"../x.y":"1"}}"#, "linux.resources.unified[\"../x.y\"]"),
    ] {
        assert_eq!(limits(json).unwrap_err().path, path, "{json}");
    }
}

#[test]
fn what_has_no_place_is_warned_about() {
    let (_, warnings) = limits(
        r#"{"memory":{"swappiness":60,"kernel":5,"kernelTCP":5,"disableOOMKiller":true,"useHierarchy":false},
            "blockIO":{"leafWeight":10},
            "network":{"classID":1,"priorities":[{"name":"eth0","priority":1}]},"cpu":{"realtimeRuntime":5},
            "rdma":{"mlx5_1":{"hcaHandles":3}}}"#,
    )
    .unwrap();
    for name in [
        "memory.swappiness",
        "memory.kernel ",
        "memory.kernelTCP",
        "memory.disableOOMKiller",
        "memory.useHierarchy",
        "blockIO.leafWeight",
        "network.classID",
        "network.priorities",
        "rdma",
        "realtimeRuntime",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(name)), "{name}: {warnings:?}");
    }
}

proptest! {
    #[test]
    fn more_shares_never_weigh_less(a in 0u64..300_000, b in 0u64..300_000) {
        let (less, more) = (a.min(b), a.max(b));
        prop_assert!(weight(less) <= weight(more));
        prop_assert!((1..=10_000).contains(&weight(a)));
    }
}
