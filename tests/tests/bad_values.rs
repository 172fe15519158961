//! A value that cannot be, for each property of config.json that limits or describes processes: the message names its JSON
//! path, and nothing is left behind.

use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::Stockade;
use stockade_tests::host::Snapshot;

/// Every value is refused with the name beside it.
#[track_caller]
fn refused(cases: impl IntoIterator<Item = (&'static str, Value, &'static str)>) {
    let stockade = Stockade::new();
    let before = Snapshot::take();
    for (pointer, value, path) in cases {
        println!("{pointer} = {value}");
        let bundle = Bundle::busybox(&["true"]).edit(|config| put(config, pointer, value));
        stockade.run_bundle(&bundle, "refused").failure(1, &[path]);
    }
    before.assert_same_now();
}

/// Sets a value at a JSON pointer, with the objects above it.
fn put(config: &mut Value, pointer: &str, value: Value) {
    let place = pointer.split('/').skip(1).fold(config, |place, name| match name.parse::<usize>() {
        Ok(index) => &mut place[index],
        Err(_) => &mut place[name],
    });
    *place = value;
}

#[test]
fn of_a_process() {
    let scheduler = "/process/scheduler";
    refused([
        ("/process", json!(null), "process"),
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!(["a\0b"]), "process.args[0]"),
        ("/process/args", json!("ls"), "process.args"),
        ("/process/env", json!(["A"]), "process.env[0]"),
        ("/process/env", json!(["A=1", "=2"]), "process.env[1]"),
        ("/process/env", json!(["A=\0"]), "process.env[0]"),
        ("/process/cwd", json!(""), "process.cwd"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/cwd", json!("/etc/passwd/below"), "\"/etc/passwd/below\""),
        ("/process/user/uid", json!(-1), "process.user.uid"),
        ("/process/user/uid", json!(u32::MAX), "process.user.uid"),
        ("/process/user/gid", json!(u32::MAX), "process.user.gid"),
        ("/process/user/umask", json!(0o1000), "process.user.umask"),
        ("/process/user/additionalGids", json!([u32::MAX]), "process.user.additionalGids"),
        ("/process/capabilities/bounding", json!("CAP_KILL"), "process.capabilities.bounding"),
        (
            "/process/rlimits",
            json!([{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }]),
            "process.rlimits[0].type",
        ),
        ("/process/rlimits", json!([{ "type": "RLIMIT_CORE", "soft": 2, "hard": 1 }]), "process.rlimits[0]"),
        (
            "/process/rlimits",
            json!([{ "type": "RLIMIT_NOFILE", "soft": 1, "hard": u64::MAX }]),
            "process.rlimits",
        ),
        ("/process/noNewPrivileges", json!("yes"), "process.noNewPrivileges"),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj"),
        ("/process/consoleSize", json!({ "height": -1, "width": 1 }), "process.consoleSize.height"),
        ("/process/terminal", json!(1), "process.terminal"),
        (scheduler, json!({ "policy": "SCHED_X" }), "process.scheduler.policy"),
        (scheduler, json!({ "policy": "SCHED_OTHER", "nice": 20 }), "process.scheduler.nice"),
        (scheduler, json!({ "policy": "SCHED_FIFO" }), "process.scheduler.priority"),
        (scheduler, json!({ "policy": "SCHED_OTHER", "flags": ["X"] }), "process.scheduler.flags[0]"),
        (scheduler, json!({ "policy": "SCHED_OTHER", "runtime": 1 }), "process.scheduler.runtime"),
        (
            scheduler,
            json!({ "policy": "SCHED_DEADLINE", "runtime": 2, "deadline": 1 }),
            "process.scheduler.runtime",
        ),
        ("/process/ioPriority", json!({ "class": "X", "priority": 1 }), "process.ioPriority.class"),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
            "process.ioPriority.priority",
        ),
        ("/process/execCPUAffinity", json!({ "initial": "x" }), "process.execCPUAffinity.initial"),
        ("/process/execCPUAffinity", json!({ "final": "3-1" }), "process.execCPUAffinity.final"),
    ]);
}

#[test]
fn of_what_holds_for_every_process() {
    let policy = "/linux/memoryPolicy";
    refused([
        ("/linux/personality", json!({ "domain": "BSD" }), "linux.personality.domain"),
        ("/linux/personality", json!({ "domain": "LINUX", "flags": ["X"] }), "linux.personality.flags[0]"),
        (policy, json!({ "mode": "MPOL_X" }), "linux.memoryPolicy.mode"),
        (policy, json!({ "mode": "MPOL_BIND" }), "linux.memoryPolicy.nodes"),
        (policy, json!({ "mode": "MPOL_BIND", "nodes": "a" }), "linux.memoryPolicy.nodes"),
        (
            policy,
            json!({ "mode": "MPOL_LOCAL", "flags": ["MPOL_F_STATIC_NODES"] }),
            "linux.memoryPolicy.flags",
        ),
        ("/linux/intelRdt", json!({ "closID": "c" }), "linux.intelRdt"),
        ("/linux/netDevices", json!({ "eth0": { "name": "eth1" } }), "linux.netDevices[\"eth0\"]"),
    ]);
}

#[test]
fn of_sysctls_that_are_of_no_namespace_of_the_containers() {
    let without_ipc = json!([{ "type": "mount" }, { "type": "network" }, { "type": "pid" }]);
    refused([
        ("/linux/sysctl", json!({ "kernel.hostname": "x" }), "\"kernel.hostname\""),
        ("/linux/sysctl", json!({ "vm.max_map_count": "262144" }), "\"vm.max_map_count\""),
        ("/linux/sysctl", json!({ "kernel/core_pattern": "|/x" }), "\"kernel/core_pattern\""),
        ("/linux/sysctl", json!({ "net/../vm/swappiness": "1" }), "linux.sysctl"),
    ]);
    let stockade = Stockade::new();
    for name in ["kernel.msgmax", "kernel.sem", "fs.mqueue.msg_max", "kernel.domainname"] {
        let bundle = Bundle::busybox(&["true"]).edit(|config| {
            config["linux"]["namespaces"] = without_ipc.clone();
            config.as_object_mut().expect("object").remove("hostname");
            config["linux"]["sysctl"] = json!({ name: "1" });
        });
        stockade.run_bundle(&bundle, "refused").failure(1, &["linux.sysctl", name, "linux.namespaces"]);
    }
}

#[test]
fn of_security_labels_that_are_required() {
    let labels = [
        ("process", "apparmorProfile", "docker-default"),
        ("process", "selinuxLabel", "system_u:x"),
        ("linux", "mountLabel", "system_u:x"),
    ];
    let stockade = Stockade::new();
    let before = Snapshot::take();
    for (section, name, label) in labels {
        let bundle = Bundle::busybox(&["true"]).edit(|config| {
            config[section][name] = label.into();
            config["annotations"] = json!({ "io.stockade.security-labels": "require" });
        });
        stockade
            .run_bundle(&bundle, "refused")
            .failure(1, &[&format!("{section}.{name}"), "io.stockade.security-labels"]);
    }
    before.assert_same_now();
}

#[test]
fn of_resources() {
    let blk = |name: &str| json!({ name: [{ "major": 250, "minor": 99, "rate": 1 }] });
    let memory = "/linux/resources/memory";
    let cpu = "/linux/resources/cpu";
    let block_io = "/linux/resources/blockIO";
    refused([
        (memory, json!({ "limit": -5 }), "linux.resources.memory.limit"),
        (memory, json!({ "limit": 4096 }), "linux.resources.memory.limit"),
        (memory, json!({ "reservation": -2 }), "linux.resources.memory.reservation"),
        (memory, json!({ "swap": 1 << 20 }), "linux.resources.memory.swap"),
        (memory, json!({ "swappiness": 101 }), "linux.resources.memory.swappiness"),
        (memory, json!({ "checkBeforeUpdate": 1 }), "linux.resources.memory.checkBeforeUpdate"),
        (cpu, json!({ "shares": -1 }), "linux.resources.cpu.shares"),
        (cpu, json!({ "quota": 999 }), "linux.resources.cpu.quota"),
        (cpu, json!({ "period": 1 }), "linux.resources.cpu.period"),
        (cpu, json!({ "quota": 5000, "burst": 6000 }), "linux.resources.cpu.burst"),
        (cpu, json!({ "idle": 2 }), "linux.resources.cpu.idle"),
        (cpu, json!({ "cpus": "1-" }), "linux.resources.cpu.cpus"),
        (cpu, json!({ "cpus": "8000" }), "linux.resources"),
        (cpu, json!({ "mems": "x" }), "linux.resources.cpu.mems"),
        (cpu, json!({ "realtimePeriod": -1 }), "linux.resources.cpu.realtimePeriod"),
        ("/linux/resources/pids", json!({ "limit": "many" }), "linux.resources.pids.limit"),
        (block_io, json!({ "weight": 1001 }), "linux.resources.blockIO.weight"),
        (
            block_io,
            json!({ "weightDevice": [{ "major": 250, "minor": 99 }] }),
            "linux.resources.blockIO.weightDevice[0]",
        ),
        (block_io, blk("throttleReadBpsDevice"), "linux.resources.blockIO.throttleReadBpsDevice[0]"),
        (block_io, blk("throttleWriteBpsDevice"), "linux.resources.blockIO.throttleWriteBpsDevice[0]"),
        (block_io, blk("throttleReadIOPSDevice"), "linux.resources.blockIO.throttleReadIOPSDevice[0]"),
        (block_io, blk("throttleWriteIOPSDevice"), "linux.resources.blockIO.throttleWriteIOPSDevice[0]"),
        (
            "/linux/resources/hugepageLimits",
            json!([{ "pageSize": "2", "limit": 1 }]),
            "linux.resources.hugepageLimits[0].pageSize",
        ),
        ("/linux/resources/hugepageLimits", json!([{ "pageSize": "3MB", "limit": 1 }]), "linux.resources"),
        ("/linux/resources/network", json!({ "classID": "x" }), "linux.resources.network.classID"),
        ("/linux/resources/rdma", json!({ "mlx": { "hcaHandles": -1 } }), "linux.resources.rdma"),
        (
            "/linux/resources/unified",
            json!({ "cgroup.procs": "1" }),
            "linux.resources.unified[\"cgroup.procs\"]",
        ),
        ("/linux/resources/unified", json!({ "no.such": "1" }), "linux.resources.unified[\"no.such\"]"),
        (
            "/linux/resources/unified",
            json!({ "../pids.max": "1" }),
            "linux.resources.unified[\"../pids.max\"]",
        ),
        ("/linux/resources/unified", json!({ "memory.high": "lots" }), "linux.resources"),
    ]);
}

#[test]
fn of_the_vm() {
    let kernel = json!({ "path": "" });
    refused([
        ("/vm", json!({}), "vm"),
        ("/vm", json!({ "kernel": {} }), "vm.kernel"),
        ("/vm", json!({ "kernel": { "path": "/etc/passwd" } }), "vm.kernel.path"),
        ("/vm", json!({ "kernel": { "path": "", "initrd": "/etc/passwd" } }), "vm.kernel.initrd"),
        (
            "/vm",
            json!({ "kernel": { "path": "", "parameters": ["init=/bin/sh"] } }),
            "vm.kernel.parameters[0]",
        ),
        ("/vm", json!({ "kernel": kernel, "hypervisor": { "path": "/bin/sh" } }), "vm.hypervisor.path"),
        (
            "/vm",
            json!({ "kernel": kernel, "hypervisor": { "path": "", "parameters": ["-x"] } }),
            "vm.hypervisor.parameters[0]",
        ),
        ("/vm", json!({ "kernel": kernel, "image": { "path": "/i", "format": "raw" } }), "vm.image"),
        ("/vm", json!({ "kernel": kernel, "hwConfig": { "vcpus": 2 } }), "vm.hwConfig.vcpus"),
        ("/vm", json!({ "kernel": kernel, "hwConfig": { "vcpus": -1 } }), "vm.hwConfig.vcpus"),
        ("/vm", json!({ "kernel": kernel, "hwConfig": { "memory": 1u64 << 30 } }), "vm.hwConfig.memory"),
        ("/vm", json!({ "kernel": kernel, "hwConfig": { "deviceTree": "/d" } }), "vm.hwConfig.deviceTree"),
        ("/vm", json!({ "kernel": kernel, "hwConfig": { "dtdevs": ["d"] } }), "vm.hwConfig.dtdevs"),
        (
            "/vm",
            json!({ "kernel": kernel, "hwConfig": { "iomems": [{ "firstMFN": 1, "nrMFNs": 1 }] } }),
            "vm.hwConfig.iomems",
        ),
        ("/vm", json!({ "kernel": kernel, "hwConfig": { "irqs": [1] } }), "vm.hwConfig.irqs"),
    ]);
}
