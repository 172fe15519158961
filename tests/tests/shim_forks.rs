//! The forks of containerd's shim that make and remove a pod's processes: what stays of the shim in what they leave behind, and
//! what is left when one fails or is killed.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;
use stockade_tests::engine::Node;
use stockade_tests::host;
use stockade_tests::killer::kill_during;
use stockade_tests::kubernetes::{Cri, Pod, container_config};

const FOREVER: &[&str] = &["/bin/sleep", "1000000"];

/// How often a fork is seen before it is killed: at its begin, on its way, and where it is about to end.
const ROUNDS: [usize; 4] = [0, 2, 8, 25];

/// What the descriptors of a process lead to, from 3 on, but files that everybody may open.
fn descriptors(pid: i32) -> BTreeSet<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").flatten();
    let above = entries.filter(|entry| {
        entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()).is_some_and(|number| number > 2)
    });
    above.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned())).collect()
}

fn parent(pid: i32) -> i32 {
    host::status_field(pid, "PPid").parse().expect("a PID")
}

/// The child of the shim that carries out a command.
fn fork_of(shim: i32) -> Option<i32> {
    let is_its = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{shim}"))
    };
    host::pids_named("stockade").into_iter().find(is_its)
}

#[test]
fn nothing_of_the_shim_stays_in_its_forks_and_nothing_of_them_when_they_die() {
    let node = Node::new();
    let cri = Cri::new(&node.socket());
    let pod = Pod::run(&cri, &node, "forks", |_| ());
    let member = pod.start(&container_config("member", FOREVER));
    let shim = host::pids_named("containerd-shim")[0];
    let mut streams = pod.exec_streams(&member, &["/bin/sh", "-c", "echo runs; exec sleep 1000"], false);
    streams.expect("runs");
    while fork_of(shim).is_some() {
        std::thread::yield_now();
    }

    // Relays are its children, the rest are not.
    let (sandbox, relay) = (pod.pid(), pod.container_pid(&member));
    assert_eq!([parent(sandbox), parent(relay)], [shim, shim]);
    let mut processes = vec![sandbox, relay];
    for name in ["stockade-vmm", "stockade-files", "stockade"] {
        let pids = host::pids_named(name);
        assert!(!pids.is_empty(), "no {name}");
        processes.extend(pids);
    }
    let of_exec = host::pids_named("sh").into_iter().filter(|pid| parent(*pid) == shim);
    processes.extend(of_exec);
    // Two containers, an exec, the VM, its file server, and what follows the network.
    assert!(processes.iter().collect::<BTreeSet<_>>().len() >= 6, "{processes:?}");
    let its = descriptors(shim);
    assert!(its.iter().any(|target| target.starts_with("socket:")), "{its:?}");
    for pid in processes {
        // The null device and kinds without an identity tell nothing.
        let both: Vec<_> = descriptors(pid)
            .intersection(&its)
            .filter(|target| *target != "/dev/null" && !target.starts_with("anon_inode:"))
            .cloned()
            .collect();
        let name = host::status_field(pid, "Name");
        assert_eq!(both, [] as [String; 0], "{pid}: {name}");
        assert!(!name.starts_with("containerd-shim"), "{pid}");
    }
    let command = fs::read(format!("/proc/{relay}/cmdline")).expect("cmdline");
    assert_eq!(command, b"/bin/sleep\x001000000\x00");
    drop(streams);

    // Its author chooses the name of a program, and the guest what is said about it.
    let hostile = pod.create(&container_config("hostile", &["/no\x1b[31m\n{\"level\":\"error\"}/where"]));
    let refused = cri.refusal("StartContainer", json!({ "container_id": hostile }));
    assert!(refused.contains("where") && !refused.contains(['\x1b', '\n']), "{refused:?}");

    for rounds in ROUNDS {
        let name = format!("killed-{rounds}");
        let id = pod.create(&container_config(&name, FOREVER));
        let start = || cri.attempt("StartContainer", json!({ "container_id": id }));
        let (started, killed) = kill_during(rounds, || fork_of(shim), start);
        eprintln!("after {rounds} rounds: killed {killed:?}, {started:?}");
        pod.remove_container(&id);
        assert_eq!(host::pids_named("containerd-shim"), [shim]);
        assert_eq!(pod.exec(&member, &["echo", "lives"]), "lives\n");
    }
    pod.remove();
    node.assert_clean();
}
