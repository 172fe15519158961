//! Threads of the VMM, of its file server and of relays that a guest has taken over: a build of their own (`tests/takeover`) has each of
//! them try every way out once it is confined. None may have got anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use stockade_takeover::{ABSTRACT_SOCKET, REPORT_FILE, TREE_MARK};
use stockade_tests::bundle::{self, Bundle};
use stockade_tests::cli::{Stockade, built, text};
use stockade_tests::hostile::oracle::Oracle;
use stockade_tests::netns::{Netns, connect};

/// Least number of ways that each thread has tried.
const MIN: usize = 100;

/// Every kind of thread, and a thread of the file server's once more when it has trees.
const THREADS: [&str; 13] = [
    "vmm Main",
    "vmm Vcpu",
    "vmm Devices",
    "vmm Fs",
    "vmm Vsock",
    "vmm Net",
    "vmm Blk",
    "vmm Files",
    "vmm FileWorker",
    "vmm FileWorker with trees",
    "runtime RelayWithHeir",
    "runtime ConnectingRelay",
    "runtime NetworkWatch",
];

/// What is no way out, although it can be done: by whom, and why.
const HARMLESS: &[(&str, &str, &str)] = &[
    (
        "vmm Main",
        "have descriptors send signals",
        "to nobody: whom they are sent to cannot be chosen (F_SETOWN is filtered)",
    ),
    (
        "runtime ConnectingRelay",
        "make a UNIX socket",
        "it can be connected to sockets in the container's root alone, and to no abstract one of the host",
    ),
    (
        "runtime RelayWithHeir",
        "send a descriptor",
        "to one socket alone, of the relay of its container or its sandbox, which copies between the two that it gets",
    ),
    (
        "runtime NetworkWatch",
        "make a UNIX socket",
        "it can be connected to sockets in a root that has the VM's own alone",
    ),
    (
        "runtime NetworkWatch",
        "make a TCP socket",
        "it connects in the pod's own network namespace alone, to port 53 (Landlock), where Docker has its resolver",
    ),
    (
        "runtime NetworkWatch",
        "make a netlink socket",
        "it asks for, and changes, the pod's own network namespace alone: what the process is there for",
    ),
];

/// The reports: of each thread, what it has tried and what came of it.
fn reports() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut reports = BTreeMap::<String, BTreeMap<String, String>>::new();
    let text = fs::read_to_string(report_file()).expect("report");
    for line in text.lines() {
        let mut parts = line.splitn(3, ": ");
        let (Some(thread), Some(attempt), Some(outcome)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("{line}");
        };
        let attempts = reports.entry(thread.to_owned()).or_default();
        // Of several threads of one kind, the one that has got furthest counts.
        let known = attempts.entry(attempt.to_owned()).or_default();
        if known != "DONE" {
            *known = outcome.to_owned();
        }
    }
    reports
}

fn report_file() -> &'static Path {
    Path::new(REPORT_FILE.to_str().expect("UTF-8"))
}

#[test]
fn no_thread_gets_anywhere() {
    let (pod, outside) = (Netns::new("pod"), Netns::new("outside"));
    connect(&pod, &outside, 1);
    // Any user may write to it: the VMM is one of its own.
    File::create(report_file()).expect("report");
    fs::set_permissions(report_file(), fs::Permissions::from_mode(0o666)).expect("mode");
    let name = SocketAddr::from_abstract_name(ABSTRACT_SOCKET).expect("name");
    let abstract_socket = UnixListener::bind_addr(&name).expect("abstract socket");
    abstract_socket.set_nonblocking(true).expect("non-blocking");

    let stockade = Stockade::with_config(&format!(
        "vmm = {:?}\nkernel = {:?}\ninitramfs = {:?}\nmemory_mib = 512\n",
        text(&built("takeover/stockade-vmm")),
        text(&built("guest/vmlinux")),
        text(&built("guest/initramfs")),
    ))
    .of_build("takeover");
    let oracle = Oracle::new();
    let image = bundle::directory();
    let path = image.path().join("image");
    File::create(&path).and_then(|file| file.set_len(8 << 20)).expect("image");
    let status = std::process::Command::new("mkfs.ext4").args(["-q", "-F", text(&path)]).status();
    assert!(status.expect("mkfs.ext4").success());
    let bundle = Bundle::script("echo up; exec sleep 1000").edit(|config| {
        config["annotations"] = json!({ "io.kubernetes.cri.container-type": "sandbox" });
        config["mounts"].as_array_mut().expect("mounts").push(json!({
            "destination": "/data", "type": "ext4", "source": text(&path), "options": ["rw"]
        }));
        pod.join(config);
    });
    mark(&bundle);
    stockade.create(&bundle, "pod");
    stockade.run(&["start", "pod"]).success();
    stockade.run(&["exec", "pod", "/bin/true"]).success();
    let member = Bundle::script("exec sleep 1000").edit(|config| {
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": "pod",
        });
    });
    mark(&member);
    stockade.create(&member, "member");
    stockade.run(&["start", "member"]).success();
    let reports = wait_for_all();
    for id in ["member", "pod"] {
        stockade.run(&["delete", "--force", id]).success();
    }
    assert!(abstract_socket.accept().is_err(), "somebody has connected to the host's abstract socket");
    fs::remove_file(report_file()).expect("report");
    oracle.assert_untouched();

    let mut done = Vec::new();
    for (thread, attempts) in &reports {
        assert!(attempts.len() >= MIN, "{thread} has tried only {} ways", attempts.len());
        eprintln!("{thread}: {}", summary(attempts));
        for (attempt, _) in attempts.iter().filter(|(_, outcome)| *outcome == "DONE") {
            if !HARMLESS.iter().any(|(of, what, _)| of == thread && what == attempt) {
                done.push(format!("{thread}: {attempt}"));
            }
        }
    }
    assert!(done.is_empty(), "{} ways out:\n{}", done.len(), done.join("\n"));
}

/// Makes the tree known to those who climb in it.
fn mark(bundle: &Bundle) {
    File::create(bundle.rootfs().join(TREE_MARK.to_str().expect("UTF-8"))).expect("mark");
}

/// The reports once there is one of each kind of thread: relays go their own way while commands return.
fn wait_for_all() -> BTreeMap<String, BTreeMap<String, String>> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let reports = reports();
        let missing: BTreeSet<_> = THREADS.iter().filter(|thread| !reports.contains_key(**thread)).collect();
        if missing.is_empty() {
            return reports;
        }
        assert!(Instant::now() < end, "no report of {missing:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// How many attempts came to which end.
fn summary(attempts: &BTreeMap<String, String>) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    attempts.values().for_each(|outcome| *counts.entry(outcome).or_default() += 1);
    counts.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect::<Vec<_>>().join(", ")
}
