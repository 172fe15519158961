//! `linux.resources`: what the container sees in its cgroup, and what the host's cgroup of its VM has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Stockade, text};
use stockade_tests::host;

/// A disk of the host, until this is dropped.
struct Disk {
    device: String,
    _file: tempfile::NamedTempFile,
}

impl Disk {
    fn attach() -> Self {
        let file = tempfile::NamedTempFile::new().expect("file");
        file.as_file().set_len(1 << 20).expect("length");
        let outcome =
            Command::new("losetup").args(["--find", "--show"]).arg(file.path()).output().expect("losetup");
        assert!(outcome.status.success(), "{outcome:?}");
        Self { device: String::from_utf8(outcome.stdout).expect("path").trim().to_owned(), _file: file }
    }

    /// Its numbers.
    fn numbers(&self) -> (u32, u32) {
        use std::os::unix::fs::MetadataExt;
        let device = fs::metadata(&self.device).expect("device").rdev();
        (libc::major(device), libc::minor(device))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

/// The host's cgroup of a process.
fn cgroup(pid: i32) -> PathBuf {
    let below = host::cgroup_of(pid).expect("a process");
    Path::new("/sys/fs/cgroup").join(below.trim_start_matches('/'))
}

#[test]
fn limits_are_the_guests_and_what_names_the_hosts_hardware_is_the_hosts() {
    let disk = Disk::attach();
    let (major, minor) = disk.numbers();
    let throttle = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let bundle = Bundle::busybox(&["sleep", "10000"]).edit(|config| {
        config["linux"]["resources"] = json!({
            "memory": { "limit": 64 << 20, "reservation": 16 << 20, "swap": 96 << 20, "checkBeforeUpdate": true },
            "pids": { "limit": 77 },
            "cpu": { "shares": 512, "quota": 50_000, "period": 100_000, "burst": 10_000, "cpus": "0", "mems": "0" },
            "blockIO": {
                "weight": 500,
                "throttleReadBpsDevice": throttle(1 << 20), "throttleWriteIOPSDevice": throttle(50),
            },
            "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }],
            "unified": { "memory.high": "50000000", "cgroup.max.depth": "3" },
        });
    });
    let stockade = Stockade::new();
    let relay = stockade.create(&bundle, "c");
    let files = [
        ("memory.max", "67108864"),
        ("memory.low", "16777216"),
        ("memory.swap.max", "33554432"),
        ("memory.high", "49999872"),
        ("pids.max", "77"),
        ("cpu.max", "50000 100000"),
        ("cpu.max.burst", "10000"),
        ("io.weight", "default 4950"),
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
        ("cgroup.max.depth", "3"),
        // The guest's CPU is none of the host's.
        ("cpuset.cpus", ""),
    ];
    let script: String = files.iter().map(|(file, _)| format!("cat /sys/fs/cgroup/{file};")).collect();
    let seen = stockade.run(&["exec", "c", "sh", "-c", &script]).success().stdout;
    let expected: String = files.iter().map(|(_, value)| format!("{value}\n")).collect();
    assert_eq!(seen, expected);

    let cgroup = cgroup(relay);
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    assert_eq!(read("cpuset.cpus"), "0\n");
    assert_eq!(read("cpuset.mems"), "0\n");
    assert_eq!(read("io.weight"), "default 4950\n");
    assert_eq!(read("io.max"), format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=50\n"));

    let update = |json: serde_json::Value| {
        let file = bundle.path().join("resources.json");
        fs::write(&file, json.to_string()).expect("write");
        stockade.run(&["update", "--resources", text(&file), "c"])
    };
    update(json!({ "pids": { "limit": -1 }, "blockIO": { "throttleReadBpsDevice": throttle(0) } })).success();
    assert_eq!(stockade.run(&["exec", "c", "cat", "/sys/fs/cgroup/pids.max"]).success().stdout, "max\n");
    assert_eq!(read("io.max"), format!("{major}:{minor} rbps=max wbps=max riops=max wiops=50\n"));
    // A change that fails in the guest is taken back on the host.
    update(json!({
        "blockIO": { "throttleReadBpsDevice": throttle(5000) },
        "hugepageLimits": [{ "pageSize": "3MB", "limit": 1 }],
    }))
    .failure(1, &["linux.resources", "hugetlb.3MB"]);
    assert_eq!(read("io.max"), format!("{major}:{minor} rbps=max wbps=max riops=max wiops=50\n"));
    update(json!({ "blockIO": { "weightDevice": [{ "major": 250, "minor": 99, "weight": 20 }] } }))
        .failure(1, &["linux.resources.blockIO.weightDevice[0]", "250:99"]);
    stockade.run(&["delete", "--force", "c"]).success();
}

#[test]
fn what_cgroup_v2_lacks_is_warned_about_by_name() {
    let bundle = Bundle::busybox(&["true"]).edit(|config| {
        config["linux"]["resources"] = json!({
            "memory": { "kernel": 1, "kernelTCP": 1, "swappiness": 10, "disableOOMKiller": true },
            "cpu": { "realtimeRuntime": 1, "realtimePeriod": 1 },
            "blockIO": { "leafWeight": 100 },
            "network": { "classID": 1, "priorities": [{ "name": "lo", "priority": 1 }] },
            "rdma": { "mlx5_1": { "hcaHandles": 3 } },
        });
    });
    let outcome =
        Stockade::new().run(&["--log-level", "warn", "run", "-b", text(bundle.path()), "warned"]).success();
    for name in [
        "memory.kernel ",
        "memory.kernelTCP",
        "memory.swappiness",
        "memory.disableOOMKiller",
        "realtimePeriod",
        "blockIO.leafWeight",
        "network.classID",
        "network.priorities",
        "rdma",
    ] {
        assert!(outcome.stderr.contains(name), "{name}: {outcome:#?}");
    }
}
