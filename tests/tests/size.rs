//! The size of VMs: what annotations and limits make of it, and what `update` changes while a container runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::Stockade;
use stockade_tests::host;

/// A configuration with a small default size: what is above it has a reason.
const SMALL: &str = "memory_mib = 256\n";

/// RAM that a container sees, in MiB.
fn ram(stockade: &Stockade, id: &str) -> u64 {
    let outcome = stockade.run(&["exec", id, "grep", "MemTotal", "/proc/meminfo"]).success();
    let kib: u64 =
        outcome.stdout.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("MemTotal");
    kib >> 10
}

/// A VM of `mib` MiB, less what its kernel takes.
#[track_caller]
fn assert_ram(stockade: &Stockade, id: &str, mib: u64) {
    let seen = ram(stockade, id);
    assert!(seen <= mib && seen + 48 + mib / 32 >= mib, "{seen} MiB seen of {mib}");
}

/// The host's cgroup of a process.
fn cgroup(pid: i32) -> PathBuf {
    let below = host::cgroup_of(pid).expect("a process");
    Path::new("/sys/fs/cgroup").join(below.trim_start_matches('/'))
}

fn memory_max(relay: i32) -> u64 {
    let text = fs::read_to_string(cgroup(relay).join("memory.max")).expect("memory.max");
    text.trim().parse::<u64>().expect("a number") >> 20
}

fn sleeping(annotations: Value) -> Bundle {
    Bundle::busybox(&["sleep", "10000"]).edit(|config| config["annotations"] = annotations)
}

fn member(limit: Option<u64>) -> Bundle {
    let bundle = sleeping(json!({
        "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pod",
    }));
    bundle.edit(|config| {
        if let Some(limit) = limit {
            config["linux"]["resources"]["memory"] = json!({ "limit": limit });
        }
    })
}

#[test]
fn a_memory_limit_is_changed_in_both_directions_and_the_vm_follows() {
    let stockade = Stockade::with_config(SMALL);
    let before = host::Snapshot::take();
    let bundle = Bundle::busybox(&["sleep", "10000"])
        .edit(|config| config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 }));
    let relay = stockade.create(&bundle, "c");
    stockade.run(&["start", "c"]).success();
    assert_ram(&stockade, "c", 64 + 1 + 96);
    assert_eq!(memory_max(relay), 161 + 128);

    let limit = || stockade.run(&["exec", "c", "cat", "/sys/fs/cgroup/memory.max"]).success().stdout;
    stockade.run(&["update", "--memory", "512m", "c"]).success();
    assert_eq!(limit(), "536870912\n");
    assert_ram(&stockade, "c", 512 + 8 + 96);
    assert_eq!(memory_max(relay), 616 + 128);
    // The new memory can be used, and the limit is exact.
    let fill = |mib: &str| {
        let script =
            format!("mount -t tmpfs -o size=100% t /tmp && dd if=/dev/zero of=/tmp/f bs=1M count={mib}");
        stockade.run(&["exec", "--cap", "CAP_SYS_ADMIN", "c", "sh", "-c", &script])
    };
    fill("400").success();
    stockade.run(&["exec", "--cap", "CAP_SYS_ADMIN", "c", "umount", "/tmp"]).success();

    stockade.run(&["update", "--memory", "128m", "c"]).success();
    assert_eq!(limit(), "134217728\n");
    let small = memory_max(relay);
    // What its kernel has put there stays.
    assert!((226 + 128..226 + 128 + 32).contains(&small), "{small}");
    assert!(ram(&stockade, "c") < 270);

    // More than the host has: nothing changes.
    stockade
        .run(&["update", "--memory", "64g", "c"])
        .failure(1, &["linux.resources.memory.limit", "the host leaves"]);
    // A change that fails in the guest takes the growth back.
    let file = bundle.path().join("resources.json");
    let resources =
        json!({ "memory": { "limit": 512 << 20 }, "hugepageLimits": [{ "pageSize": "3MB", "limit": 1 }] });
    fs::write(&file, resources.to_string()).expect("write");
    stockade.run(&["update", "--resources", file.to_str().expect("path"), "c"]).failure(1, &["hugetlb.3MB"]);
    assert_eq!(limit(), "134217728\n");
    assert!(memory_max(relay) < small + 32);
    stockade.run(&["delete", "--force", "c"]).success();
    before.assert_same_now();
}

#[test]
fn annotations_of_both_kinds_size_a_pod() {
    let stockade = Stockade::with_config(SMALL);
    let annotated = sleeping(json!({
        "io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-memory": "536870912",
        // A pod's author writes the keys of another engine: they do not count.
        "io.kubernetes.docker.type": "container", "io.kubernetes.sandbox.id": "elsewhere",
    }));
    stockade.create(&annotated, "containerd");
    assert_ram(&stockade, "containerd", 512 + 8 + 96);
    stockade.run(&["delete", "--force", "containerd"]).success();
    let annotations = json!({
        "io.kubernetes.cri-o.ContainerType": "sandbox",
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-memory": "1073741824",
        "io.kubernetes.cri-o.PodLinuxResources": r#"{"memory_limit_in_bytes":536870912}"#,
        "io.kubernetes.cri-o.PodLinuxOverhead": r#"{"memory_limit_in_bytes":335544320}"#,
    });
    let annotated = sleeping(annotations);
    stockade.create(&annotated, "crio");
    assert_ram(&stockade, "crio", 512 + 8 + 320 - 128);
    stockade.run(&["delete", "--force", "crio"]).success();
    let nonsense = sleeping(json!({
        "io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-memory": "much",
    }));
    stockade.run_bundle(&nonsense, "c").failure(1, &["io.kubernetes.cri.sandbox-memory", "\"much\""]);
}

#[test]
fn members_make_their_pod_larger_and_give_back_what_they_took() {
    let stockade = Stockade::with_config(SMALL);
    let [pod, unlimited] = [sleeping(json!({})), member(None)];
    let relay = stockade.create(&pod, "pod");
    stockade.run(&["start", "pod"]).success();
    assert_ram(&stockade, "pod", 256);
    stockade.create(&unlimited, "unlimited");
    assert_ram(&stockade, "pod", 256);
    let [a, b] = [member(Some(256 << 20)), member(Some(128 << 20))];
    stockade.create(&a, "a");
    assert_ram(&stockade, "pod", 256 + 4 + 96);
    stockade.create(&b, "b");
    assert_ram(&stockade, "b", 384 + 6 + 96);
    assert_eq!(memory_max(relay), 486 + 128);
    stockade.run(&["update", "--memory", "512m", "b"]).success();
    assert_ram(&stockade, "b", 768 + 12 + 96);
    stockade.run(&["delete", "--force", "b"]).success();
    assert!(ram(&stockade, "pod") < 512, "{}", ram(&stockade, "pod"));
    stockade.run(&["delete", "--force", "a"]).success();
    // What its kernel has put there stays.
    assert!((256 + 128..256 + 128 + 32).contains(&memory_max(relay)), "{}", memory_max(relay));
    stockade.run(&["delete", "--force", "pod"]).success();
}

#[test]
fn a_pod_without_memory_left_is_refused_and_leaves_nothing() {
    let stockade = Stockade::with_config(SMALL);
    let before = host::Snapshot::take();
    let parent = Path::new("/sys/fs/cgroup/small-pod");
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").expect("controller");
    fs::create_dir(parent).expect("cgroup");
    let limit = |mib: u64| fs::write(parent.join("memory.max"), (mib << 20).to_string()).expect("memory.max");
    let bundle = Bundle::busybox(&["sleep", "10000"])
        .edit(|config| config["linux"]["cgroupsPath"] = "/small-pod/c".into());
    limit(100);
    stockade.run_bundle(&bundle, "c").failure(1, &["no memory for the VM", "100 MiB"]);
    // A VM that is as large as its pod can be does not become larger.
    limit(300);
    let relay = stockade.create(&bundle, "c");
    assert_eq!(memory_max(relay), 300);
    stockade.run(&["update", "--memory", "512m", "c"]).failure(1, &["the host leaves it 172 MiB"]);
    assert_eq!(memory_max(relay), 300);
    stockade.run(&["delete", "--force", "c"]).success();
    fs::remove_dir(parent).expect("nothing is left in it");
    before.assert_same_now();
}

/// CPUs that a container sees.
fn cpus(stockade: &Stockade, id: &str) -> usize {
    stockade
        .run(&["exec", id, "grep", "-c", "^processor", "/proc/cpuinfo"])
        .stdout
        .trim()
        .parse()
        .expect("number")
}

/// `allowed` is the line of /proc/self/status.
fn allowed(stockade: &Stockade, id: &str) -> String {
    let line = stockade.run(&["exec", id, "grep", "Cpus_allowed_list", "/proc/self/status"]).success().stdout;
    line.split_whitespace().nth(1).expect("a list").to_owned()
}

#[test]
fn a_quota_is_rounded_up_to_cpus_and_changed_in_both_directions() {
    let stockade = Stockade::with_config("memory_mib = 256\nmax_vcpus = 3\n");
    let script = "grep -c ^processor /proc/cpuinfo > /cpus; sleep 10000";
    let bundle = Bundle::script(script).edit(|config| {
        config["linux"]["resources"]["cpu"] = json!({ "quota": 150_000, "period": 100_000 });
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_SYSLOG"]);
        }
    });
    let relay = stockade.create(&bundle, "c");
    stockade.run(&["start", "c"]).success();
    assert_eq!((cpus(&stockade, "c"), allowed(&stockade, "c").as_str()), (2, "0-1"));
    let seen = fs::read_to_string(bundle.rootfs().join("cpus")).expect("what the program saw");
    assert_eq!(seen, "2\n", "from its start");
    let vmm = stockade.vmm_pid(relay);
    let threads = || {
        let tasks = fs::read_dir(format!("/proc/{vmm}/task")).expect("threads");
        tasks
            .filter(|task| {
                let name = fs::read_to_string(task.as_ref().expect("thread").path().join("comm"));
                name.expect("name").starts_with("vcpu")
            })
            .count()
    };
    assert_eq!(threads(), 2, "those that are not wanted cost nothing");

    let quota = |quota: &str| stockade.run(&["update", "--cpu-quota", quota, "c"]);
    quota("300000").success();
    assert_eq!((cpus(&stockade, "c"), threads()), (3, 3));
    quota("50000").success();
    assert_eq!((cpus(&stockade, "c"), allowed(&stockade, "c").as_str()), (1, "0"));
    assert_eq!(
        stockade.run(&["exec", "c", "cat", "/sys/fs/cgroup/cpu.max"]).success().stdout,
        "50000 100000\n"
    );
    quota("200000").success();
    assert_eq!(cpus(&stockade, "c"), 2, "one that was let go of comes back");
    let log = stockade.run(&["exec", "--cap", "CAP_SYSLOG", "c", "dmesg"]).success().stdout.to_lowercase();
    assert!(log.contains("booting node 0 processor 2"), "{log}");
    assert!(!log.contains("out of sync") && !log.contains("warp"), "{log}");
    // A container's own view of sysfs has stayed read-only.
    let write = "echo 0 > /sys/devices/system/cpu/cpu1/online";
    let refused = stockade.run(&["exec", "c", "sh", "-c", write]);
    assert!(refused.status != 0 && refused.stderr.contains("Read-only"), "{refused:#?}");
    stockade.run(&["delete", "--force", "c"]).success();
    host::wait_for_end(vmm);
}

#[test]
fn a_bundle_may_ask_for_as_many_cpus_as_it_is_allowed() {
    let stockade = Stockade::with_config("memory_mib = 256\n[vm]\nmax_vcpus = 2\n");
    let bundle = Bundle::busybox(&["sleep", "10000"])
        .edit(|config| config["vm"] = json!({ "kernel": { "path": "" }, "hwConfig": { "vcpus": 2 } }));
    stockade.create(&bundle, "c");
    assert_eq!(cpus(&stockade, "c"), 2);
    stockade.run(&["delete", "--force", "c"]).success();
    let bundle = bundle.edit(|config| config["vm"]["hwConfig"]["vcpus"] = 3.into());
    stockade.run_bundle(&bundle, "c").failure(1, &["vm.hwConfig.vcpus", "2 that the configuration allows"]);
}

#[test]
fn a_pods_quota_is_known_from_its_annotations_and_grows_with_its_members() {
    let stockade = Stockade::with_config("memory_mib = 256\nmax_vcpus = 2\n");
    let pod = sleeping(json!({
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-cpu-quota": "50000", "io.kubernetes.cri.sandbox-cpu-period": "100000",
        "io.kubernetes.cri.sandbox-memory": "67108864",
    }));
    stockade.create(&pod, "pod");
    assert_eq!(cpus(&stockade, "pod"), 1);
    let member = member(Some(32 << 20))
        .edit(|config| config["linux"]["resources"]["cpu"] = json!({ "quota": 200_000, "period": 100_000 }));
    stockade.create(&member, "member");
    assert_eq!(cpus(&stockade, "member"), 2);
    stockade.run(&["delete", "--force", "member"]).success();
    assert_eq!(cpus(&stockade, "pod"), 1);
    stockade.run(&["delete", "--force", "pod"]).success();
}

#[test]
fn memory_that_the_guest_frees_is_the_hosts_again() {
    let stockade = Stockade::with_config("memory_mib = 1536\n");
    let bundle = Bundle::busybox(&["sleep", "10000"]).edit(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(
            json!({ "destination": "/big", "type": "tmpfs", "source": "big", "options": ["size=1200m"] }),
        );
    });
    let relay = stockade.create(&bundle, "c");
    stockade.run(&["start", "c"]).success();
    let vmm = stockade.vmm_pid(relay);
    let resident = || {
        let text = host::status_field(vmm, "VmRSS");
        text.trim_end_matches(" kB").parse::<u64>().expect("KiB") >> 10
    };
    stockade.run(&["exec", "c", "dd", "if=/dev/zero", "of=/big/file", "bs=1M", "count=1024"]).success();
    let full = resident();
    assert!(full >= 1024, "{full} MiB");
    stockade.run(&["exec", "c", "rm", "/big/file"]).success();
    // The guest reports when it finds the time, and nobody tells when that is.
    let deadline = Instant::now() + Duration::from_secs(120);
    while resident() + 900 > full {
        assert!(Instant::now() < deadline, "{} MiB of {full} are still the guest's", resident());
        std::thread::sleep(Duration::from_millis(100));
    }
    stockade.run(&["delete", "--force", "c"]).success();
}
