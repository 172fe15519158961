//! Pods as CRI-O drives them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stockade_tests::cli::Outcome;
use stockade_tests::crio::{Crio, POD_ADDRESS, Pod, start_time};
use stockade_tests::host::{self, Snapshot};

/// How long a stop may take beyond its grace period.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn a_pod_is_run_used_and_removed() {
    let crio = Crio::new();
    let before = Snapshot::take();
    let features = crio.run(&["features"]).success();
    assert!(serde_json::from_str::<Value>(&features.stdout).is_ok(), "{features:#?}");

    let pod = Pod::new("web");
    let picture = pod.netns.picture();
    let infra = crio.start(&pod.bundle, "web");
    let infra_start = start_time(infra).expect("the infra container lives");
    assert_eq!(crio.stockade.status("web"), "running");
    assert_eq!(crio.stockade.state("web")["pid"], infra);
    assert!(Crio::is_alive(infra, &infra_start));
    pod.peer.run(&format!("busybox ping -c 1 -W 60 {POD_ADDRESS}"));

    // A member with a PID namespace of its own, as Kubernetes has it unless told otherwise.
    let script = "echo up; echo to stderr >&2; trap 'echo signalled' USR1; trap 'echo ignored' TERM; while :; do sleep 0.2; done";
    let server = pod.member("server", script, None);
    let pid = crio.start(&server, "server");
    let began = start_time(pid).expect("the member lives");
    host::wait_for_text(&crio.log("server"), "stdout F up\n");
    host::wait_for_text(&crio.log("server"), "stderr F to stderr\n");
    assert_eq!(
        (&*crio.logged("server", "stdout"), &*crio.logged("server", "stderr")),
        ("up\n", "to stderr\n")
    );
    let (status, out, err) = crio.exec_sync(
        &server,
        "server",
        &["sh", "-c", "echo $$; hostname; cat /etc/hostname /etc/resolv.conf; busybox ip addr; ps; exit 3"],
    );
    assert_eq!((status, err.as_str()), (3, ""), "{out}");
    assert_has(&out, &["host-web\nhost-web\nnameserver 10.96.0.10\n", " eth0: <", "inet 10.85.0.2/24"]);
    assert!(
        !out.contains("trap 'exit 0' TERM"),
        "the infra container's processes are not the member's:\n{out}"
    );

    // In the foreground, with stdio of the caller and its exit status.
    let outcome = crio.exec(&server, "server", &["sh", "-c", "cat; echo error >&2; exit 5"], b"input\n");
    assert_eq!((outcome.status, &*outcome.stdout, &*outcome.stderr), (5, "input\n", "error\n"));
    let outcome = crio.exec(&server, "server", &["nowhere"], b"");
    assert_eq!((outcome.status, outcome.stdout.as_str()), (255, ""), "{outcome:#?}");
    let (_, range, _) = crio.exec_sync(&server, "server", &["cat", "/proc/sys/net/ipv4/ping_group_range"]);
    assert_eq!(range, "0\t0\n", "the sysctl of the infra container");

    // Another one that sees all processes of the pod, its localhost and its /dev/shm.
    let listen = "busybox nc -ll -p 80 -e /bin/hostname > /dev/null 2>&1 & echo shared > /dev/shm/file";
    crio.exec_sync(&server, "server", &["sh", "-c", listen]);
    let script = "cat /dev/shm/file; until busybox nc 127.0.0.1 80; do :; done; ps; exit 9";
    let client = pod.member("client", script, Some(infra));
    crio.start(&client, "client");
    assert_eq!(crio.wait_for_exit("client"), 9);
    let out = crio.logged("client", "stdout");
    assert_has(&out, &["shared\nhost-web\n", "trap 'exit 0' TERM"]);
    assert_eq!(pod.peer.run(&format!("busybox nc {POD_ADDRESS} 80")), "host-web\n", "from the node");
    assert_eq!(crio.stockade.status("client"), "stopped");
    crio.run(&["kill", "client", "KILL"]).failure(1, &["container not running"]);
    crio.remove(&client, "client");

    crio.run(&["pause", "server"]).success();
    assert_eq!(crio.stockade.status("server"), "paused");
    crio.run(&["resume", "server"]).success();
    assert_eq!(crio.stockade.status("server"), "running");
    let resources = json!({ "memory": { "limit": 50 << 20 }, "cpu": { "shares": 512 } }).to_string();
    let update = &mut crio.command(&["update", "--resources", "-", "server"]);
    Outcome::of(update, resources.as_bytes()).success();
    let (_, limit, _) = crio.exec_sync(&server, "server", &["cat", "/sys/fs/cgroup/memory.max"]);
    assert_eq!(limit.trim().parse(), Ok(50 << 20));

    crio.run(&["kill", "server", "10"]).success();
    host::wait_for_text(&crio.log("server"), "stdout F signalled\n");
    assert!(Crio::is_alive(pid, &began));
    // A stop: the grace period begins with TERM, and CRI-O looks meanwhile whether the process lives. What is left of it at the end of that
    // period is what KILL takes, after which `kill` itself waits three seconds at most for the guest.
    crio.run(&["kill", "server", "TERM"]).success();
    host::wait_for_text(&crio.log("server"), "stdout F ignored\n");
    assert!(Crio::is_alive(pid, &began));
    let killed = Instant::now();
    crio.run(&["kill", "server", "KILL"]).success();
    assert_eq!(crio.wait_for_exit("server"), 137);
    host::wait_for_end(pid);
    assert!(killed.elapsed() < STOPS_WITHIN, "{:?}", killed.elapsed());
    assert!(!Crio::is_alive(pid, &began));
    assert_eq!(crio.stockade.status("server"), "stopped");
    // The kubelet starts it again, as another container, before the old one is removed.
    let again = pod.member("server-1", "hostname; exit 0", None);
    crio.start(&again, "server-1");
    assert_eq!(crio.wait_for_exit("server-1"), 0);
    assert_eq!(crio.logged("server-1", "stdout"), "host-web\n");
    crio.remove(&server, "server");
    crio.remove(&again, "server-1");

    crio.run(&["kill", "web", "TERM"]).success();
    assert_eq!(crio.wait_for_exit("web"), 0);
    assert!(!Crio::is_alive(infra, &infra_start));
    crio.remove(&pod.bundle, "web");
    assert_eq!(pod.netns.picture(), picture, "nothing is left in the namespace");
    pod.remove();
    before.assert_same_now();
}

#[test]
fn a_sandbox_that_is_stopped_takes_its_members_along() {
    let crio = Crio::new();
    let before = Snapshot::take();
    let mut pod = Pod::new("stopped");
    let picture = pod.netns.picture();
    let infra = crio.start(&pod.bundle, "stopped");
    let members = [("apart", None), ("together", Some(infra))].map(|(id, shared_pid)| {
        let bundle = pod.member(id, "exec sleep 1000", shared_pid);
        crio.start(&bundle, id);
        (id, bundle)
    });
    crio.run(&["kill", "stopped", "KILL"]).success();
    assert_eq!(crio.wait_for_exit("stopped"), 137);
    for (id, _) in &members {
        assert_eq!(crio.wait_for_exit(id), 137, "{id}");
        assert_eq!(crio.stockade.status(id), "stopped");
    }
    // The kubelet keeps it like this for a while. Its namespaces are gone, and the next pod's may get their numbers: when the
    // kernel gives them out again is its business (sandbox_test::namespaces_that_are_gone_are_nobodys has one that is).
    pod.unpin();
    let next = Pod::new("next");
    let next_infra = crio.start(&next.bundle, "next");
    let member = next.member("next-member", "hostname", Some(next_infra));
    crio.start(&member, "next-member");
    assert_eq!(crio.wait_for_exit("next-member"), 0);
    assert_eq!(crio.logged("next-member", "stdout"), "host-next\n");
    assert_eq!(crio.stockade.status("stopped"), "stopped");
    crio.remove(&member, "next-member");
    crio.run(&["kill", "next", "KILL"]).success();
    assert_eq!(crio.wait_for_exit("next"), 137);
    crio.remove(&next.bundle, "next");
    next.remove();
    // Removed in the wrong order: nothing depends on it.
    crio.remove(&pod.bundle, "stopped");
    for (id, bundle) in &members {
        crio.remove(bundle, id);
    }
    assert_eq!(pod.netns.picture(), picture);
    pod.remove();
    before.assert_same_now();
}

#[test]
fn a_container_that_cannot_be_created_is_reported_and_leaves_nothing() {
    let crio = Crio::new();
    let before = Snapshot::take();
    let pod = Pod::new("refused");
    crio.start(&pod.bundle, "refused");
    let member =
        pod.member("bad", "true", None).edit(|config| config["process"]["args"] = json!(["/nowhere"]));
    let message = crio.create(&member, "bad").expect_err("there is no such program");
    assert_has(&message, &["/nowhere"]);
    assert_eq!(message.lines().count(), 1, "{message}");
    crio.run(&["state", "bad"]).failure(1, &["does not exist"]);
    crio.remove(&member, "bad");
    assert_eq!(crio.stockade.status("refused"), "running");
    crio.run(&["kill", "refused", "KILL"]).success();
    crio.wait_for_exit("refused");
    crio.remove(&pod.bundle, "refused");
    pod.remove();
    before.assert_same_now();
}
