//! The containers of one pod: one after another, beside each other, again, and in each other's pid namespaces.

use std::fs;

use serde_json::{Value, json};
use stockade_tests::engine::{Node, Shim};
use stockade_tests::host;
use stockade_tests::kubernetes::{Cri, Pod, container_config};

const FOREVER: &[&str] = &["/bin/sleep", "1000000"];

/// A container with these processes in sight: the kubelet's `shareProcessNamespace`, or a debug container's target.
fn with_pid(mut config: Value, mode: &str, target: &str) -> Value {
    let options = &mut config["linux"]["security_context"]["namespace_options"];
    options["pid"] = mode.into();
    options["target_id"] = target.into();
    config
}

/// Runs the next attempt of a container to its end; its exit status.
#[track_caller]
fn run(pod: &Pod<'_>, config: &Value) -> (String, i64) {
    let id = pod.start(config);
    let status = pod.wait(&id)["exit_code"].as_i64().expect("a status");
    (id, status)
}

/// The commands that a container sees running, without the one that looks.
fn processes(pod: &Pod<'_>, container: &str) -> Vec<String> {
    let list = pod.exec(container, &["ps", "-o", "args"]);
    let mut commands: Vec<_> =
        list.lines().skip(1).filter(|line| !line.starts_with("ps ")).map(str::to_owned).collect();
    commands.sort();
    commands
}

#[test]
fn init_containers_members_and_their_restarts() {
    // The pods of the other files have stockade's own shim.
    let node = Node::with(Shim::Runcs);
    let cri = Cri::new(&node.socket());
    let pod = Pod::run(&cri, &node, "stages", |_| ());
    let data = node.path().join("data");
    fs::create_dir(&data).expect("directory");
    let volume = json!([{ "host_path": data, "container_path": "/data" }]);
    let stage = |name: &str, attempt: u32, script: &str| {
        let mut config = container_config(name, &["sh", "-c", script]);
        config["metadata"]["attempt"] = attempt.into();
        config["log_path"] = format!("{name}-{attempt}.log").into();
        config["mounts"] = volume.clone();
        config
    };

    // Each init container begins when the one before has ended, and one that fails is run again.
    let (_, status) = run(&pod, &stage("init-1", 0, "echo one >> /data/order"));
    assert_eq!(status, 0);
    let flaky = "echo two >> /data/order; [ $(wc -l < /data/order) = 3 ] || exit 7";
    let (failed, status) = run(&pod, &stage("init-2", 0, flaky));
    assert_eq!(status, 7);
    let (again, status) = run(&pod, &stage("init-2", 1, flaky));
    assert_eq!(status, 0);
    assert_ne!(failed, again);
    assert_eq!(fs::read_to_string(data.join("order")).expect("order"), "one\ntwo\ntwo\n");

    // The main container is restarted while a neighbour runs on.
    let neighbour = pod.start(&container_config("neighbour", FOREVER));
    let crash = "echo run; exit 3";
    for attempt in 0..2 {
        let (id, status) = run(&pod, &stage("main", attempt, crash));
        assert_eq!(
            (status, pod.container(&id)["metadata"]["attempt"].as_u64()),
            (3, Some(u64::from(attempt)))
        );
        let log = fs::read_to_string(pod.log(&format!("main-{attempt}"))).expect("log");
        assert!(log.ends_with(" stdout F run\n"), "{log}");
    }
    assert_eq!(pod.container(&neighbour)["state"], "CONTAINER_RUNNING");
    // One that is killed ends as it does under runc.
    let long = pod.start(&stage("long", 0, "trap '' TERM; touch /data/long; while true; do sleep 1; done"));
    host::wait_for_file(&data.join("long"));
    cri.call("StopContainer", json!({ "container_id": long, "timeout": 1 }));
    assert_eq!(pod.container(&long)["exit_code"], 137);
    // One that is created and never started is removed.
    let unstarted = pod.create(&stage("unstarted", 0, "true"));
    cri.call("RemoveContainer", json!({ "container_id": unstarted }));
    assert_eq!(host::pids_named("stockade-vmm").len(), 1, "one VM for them all");

    // Not stopped before, as a kubelet does that has been down.
    cri.call("RemovePodSandbox", json!({ "pod_sandbox_id": pod.id }));
    assert_eq!(cri.call("ListContainers", json!({}))["containers"], json!([]));
    Pod::forget("stages");
    node.assert_clean();
}

#[test]
fn pid_namespaces_are_shared_where_the_pod_asks_for_it() {
    let node = Node::new();
    let cri = Cri::new(&node.socket());
    let pod = Pod::run(&cri, &node, "shared", |config| {
        config["linux"]["security_context"]["namespace_options"]["pid"] = "POD".into();
    });
    let pause = "/bin/sleep 1000000";
    let shared = |name: &str, args: &[&str]| with_pid(container_config(name, args), "POD", "");
    let first = pod.start(&shared("first", &["/bin/sleep", "1001"]));
    let second = pod.start(&shared("second", &["/bin/sleep", "1002"]));
    for container in [&first, &second] {
        assert_eq!(processes(&pod, container), [pause, "/bin/sleep 1001", "/bin/sleep 1002"]);
    }
    let own = pod.start(&container_config("own", &["/bin/sleep", "1003"]));
    assert_eq!(processes(&pod, &own), ["/bin/sleep 1003"]);

    // `kubectl debug --target`: what the target sees, and its files through /proc.
    let debug = pod.start(&with_pid(container_config("debug", &["/bin/sleep", "1004"]), "TARGET", &own));
    assert_eq!(processes(&pod, &debug), ["/bin/sleep 1003", "/bin/sleep 1004"]);
    pod.exec(&own, &["touch", "/tmp/seen"]);
    pod.exec(&debug, &["ls", "/proc/1/root/tmp/seen"]);
    // It goes, and its target stays.
    pod.remove_container(&debug);
    assert_eq!(processes(&pod, &own), ["/bin/sleep 1003"]);
    // A member that ends leaves the namespace that it shared as it was.
    pod.remove_container(&second);
    assert_eq!(processes(&pod, &first), [pause, "/bin/sleep 1001"]);
    pod.remove();
    node.assert_clean();
}
