use super::*;

/// A container that nothing has been made of yet.
pub fn record(id: &str) -> Record {
    Record {
        id: id.to_owned(),
        bundle: "/b".into(),
        rootfs: "/b/rootfs".into(),
        created: "2026-01-01T00:00:00.000000000Z".to_owned(),
        annotations: HashMap::new(),
        owner: 0,
        boot_id: boot_id().to_owned(),
        complete: false,
        started: false,
        paused: false,
        relay: None,
        vmm: None,
        files: None,
        demand: Demand::default(),
        vm_size: None,
        cgroup: None,
        hooks: Hooks::default(),
        sandbox: None,
        volumes: Vec::new(),
        disks: Vec::new(),
        namespaces: Vec::new(),
        network: None,
        template: None,
        selinux: None,
    }
}
