//! Kubernetes' pods: containerd's CRI plugin, called as the kubelet calls it, with Debian's CNI plugins.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use stockade_tests::engine::{NGINX_PAGE, NGINX_SERVES, Node};
use stockade_tests::host;
use stockade_tests::kubernetes::{Cri, Forward, Pod, Streams, WEB_ARGS, container_config};

/// Longest that one answer of a server in a pod may take.
const LIMIT: Duration = Duration::from_secs(120);

const REQUEST: &str = "GET / HTTP/1.0\r\nHost: pod\r\n\r\n";

/// What a server answers to a GET.
#[track_caller]
fn get(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
    stream.set_read_timeout(Some(LIMIT)).expect("timeout");
    stream.write_all(REQUEST.as_bytes()).expect("send the request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|e| panic!("{address}: {e}"));
    answer
}

/// The IDs that a listing holds.
fn ids(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().filter_map(|entry| entry["id"].as_str()).collect()
}

#[test]
fn a_pod_serves_and_is_handled_as_the_kubelet_does() {
    let node = Node::new();
    let cri = Cri::new(&node.socket());
    let conditions = cri.call("Status", json!({}))["status"]["conditions"].clone();
    assert!(
        conditions.as_array().expect("conditions").iter().all(|condition| condition["status"] == true),
        "{conditions:#}"
    );

    // The sandbox.
    let pod = Pod::run(&cri, &node, "web", |_| ());
    let listed = cri.call("ListPodSandbox", json!({ "filter": { "state": { "state": "SANDBOX_READY" } } }));
    assert_eq!(ids(&listed["items"]), [&*pod.id], "{listed:#}");
    assert_eq!(listed["items"][0]["runtime_handler"], "stockade");
    let in_runtime = node.stockade(&["list", "--quiet"]).success();
    assert_eq!(in_runtime.stdout.trim(), pod.id);
    let address = pod.address();
    assert!(address.starts_with("10.89."), "{address}");

    // A container in it.
    let web = pod.create(&container_config("nginx", WEB_ARGS));
    assert_eq!(pod.container(&web)["state"], "CONTAINER_CREATED");
    cri.call("StartContainer", json!({ "container_id": web }));
    assert_eq!(pod.container(&web)["state"], "CONTAINER_RUNNING");
    let running =
        cri.call("ListContainers", json!({ "filter": { "state": { "state": "CONTAINER_RUNNING" } } }));
    assert_eq!(ids(&running["containers"]), [&*web], "{running:#}");
    assert_eq!(host::pids_named("stockade-vmm").len(), 1, "one VM a pod");
    host::wait_for_text(&pod.log("nginx"), NGINX_SERVES);

    // Its network.
    let interfaces = pod.exec(&web, &["/bin/busybox", "ip", "addr", "show", "eth0"]);
    assert!(interfaces.contains(&format!("inet {address}/16")), "{interfaces}");
    let page = get(&format!("{address}:80"));
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains(NGINX_PAGE), "{page}");
    host::wait_for_text(&pod.log("nginx"), "\"GET / HTTP/1.0\" 200");
    let log = fs::read_to_string(pod.log("nginx")).expect("log");
    assert!(log.lines().any(|line| line.contains(" stdout F ") && line.contains("GET /")), "{log}");
    assert!(log.lines().any(|line| line.contains(" stderr F ") && line.contains(NGINX_SERVES)), "{log}");

    // A neighbour in the pod, and another pod.
    let shell = pod.start(&container_config("shell", &["/bin/sleep", "1000000"]));
    let local = pod.exec(&shell, &["/bin/busybox", "wget", "-q", "-O", "-", "http://localhost/"]);
    assert!(local.contains(NGINX_PAGE), "{local}");
    assert_eq!(pod.exec(&shell, &["hostname"]), "web\n");
    assert_eq!(host::pids_named("stockade-vmm").len(), 1, "one VM a pod");
    let resolv = pod.exec(&shell, &["cat", "/etc/resolv.conf"]);
    assert_eq!(resolv, "search cluster.local\nnameserver 192.0.2.53\noptions ndots:5\n");
    let other = Pod::run(&cri, &node, "other", |_| ());
    let client = other.start(&container_config("client", &["/bin/sleep", "1000000"]));
    let url = format!("http://{address}/");
    let far = other.exec(&client, &["/bin/busybox", "wget", "-q", "-O", "-", &url]);
    assert!(far.contains(NGINX_PAGE), "{far}");
    other.exec(&client, &["/bin/busybox", "ping", "-c", "1", "-W", "60", &address]);

    // Streams.
    let failed = cri.call(
        "ExecSync",
        json!({ "container_id": web, "cmd": ["sh", "-c", "echo out; echo err >&2; exit 3"] }),
    );
    assert_eq!(
        (&failed["stdout"], &failed["stderr"], &failed["exit_code"]),
        (&json!("out\n"), &json!("err\n"), &json!(3))
    );
    // containerd does not wait for the end of what could not begin.
    let missing = cri.refusal("ExecSync", json!({ "container_id": web, "cmd": ["/missing"] }));
    assert!(missing.contains("/missing") && missing.contains("no such file"), "{missing}");
    assert!(!node.log().contains("Failed to delete exec process"), "{}", node.log());
    let mut exec =
        pod.exec_streams(&shell, &["sh", "-c", "read line; echo got $line; echo bad >&2; exit 5"], false);
    exec.send("words\n");
    let exec = exec.finish();
    assert_eq!((exec.stdout.as_str(), exec.stderr.as_str()), ("got words\n", "bad\n"), "{}", exec.status);
    let status: Value = serde_json::from_str(&exec.status).expect("a status in JSON");
    assert_eq!(status["details"]["causes"][0]["message"], "5", "{status:#}");
    let mut terminal = pod.exec_streams(&shell, &["sh"], true);
    terminal.resize(97, 31);
    terminal.expect("# ");
    terminal.send("stty size; tty; exit\n");
    let terminal = terminal.finish();
    assert!(
        terminal.stdout.contains("31 97") && terminal.stdout.contains("/dev/pts/"),
        "{}",
        terminal.stdout
    );
    let mut talker = container_config("talker", &["sh", "-c", "while read line; do echo said $line; done"]);
    talker["stdin"] = true.into();
    let talker = pod.start(&talker);
    let attach = json!({ "container_id": talker, "stdin": true, "stdout": true, "stderr": true });
    let mut attached = Streams::open(cri.call("Attach", attach)["url"].as_str().expect("an address"));
    attached.send("hello\n");
    attached.expect("said hello\n");
    drop(attached);

    let forward = cri.call("PortForward", json!({ "pod_sandbox_id": pod.id, "port": [80] }));
    let page = Forward::open(forward["url"].as_str().expect("an address"), 80).ask(REQUEST, "</html>");
    assert!(page.contains(NGINX_PAGE), "{page}");

    // Figures and limits.
    let stats = cri.call("ContainerStats", json!({ "container_id": web }))["stats"].clone();
    assert!(stats["cpu"]["usage_core_nano_seconds"]["value"].as_u64().is_some(), "{stats:#}");
    assert!(stats["memory"]["working_set_bytes"]["value"].as_u64().is_some(), "{stats:#}");
    let limits = json!({ "memory_limit_in_bytes": 64 << 20, "cpu_period": 100_000, "cpu_quota": 50_000, "cpu_shares": 512 });
    cri.call("UpdateContainerResources", json!({ "container_id": web, "linux": limits }));
    let limit = pod.exec(&web, &["cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max"]);
    assert_eq!(limit, format!("{}\n50000 100000\n", 64 << 20));
    // Each container's are its own.
    let fill = ["dd", "if=/dev/zero", "of=/dev/full-of-it", "bs=1M", "count=24"];
    pod.exec(&shell, &fill);
    let used = |container: &str| {
        let stats = cri.call("ContainerStats", json!({ "container_id": container }))["stats"].clone();
        stats["memory"]["working_set_bytes"]["value"].as_u64().unwrap_or_else(|| panic!("{stats:#}"))
    };
    let (full, other_used) = (used(&shell), used(&web));
    assert!((24 << 20..64 << 20).contains(&full), "{full}");
    assert!((1..24 << 20).contains(&other_used), "{other_used}");

    // A container that needs more than it may have.
    let mut greedy = container_config("greedy", &["sh", "-c", "echo begins; exec tail /dev/zero"]);
    greedy["linux"]["resources"]["memory_limit_in_bytes"] = (16 << 20).into();
    let greedy = pod.start(&greedy);
    let killed = pod.wait(&greedy);
    assert_eq!((&killed["exit_code"], &killed["reason"]), (&json!(137), &json!("OOMKilled")), "{killed:#}");
    let log = fs::read_to_string(pod.log("greedy")).expect("log");
    assert!(log.contains("begins"), "{log}");
    pod.remove_container(&greedy);

    // The end.
    cri.call("StopContainer", json!({ "container_id": web, "timeout": 60 }));
    let stopped = pod.container(&web);
    assert_eq!(
        (&stopped["state"], &stopped["exit_code"]),
        (&json!("CONTAINER_EXITED"), &json!(0)),
        "{stopped:#}"
    );
    cri.call("RemoveContainer", json!({ "container_id": web }));
    assert_eq!(pod.state(), "SANDBOX_READY");
    // With members running.
    cri.call("StopPodSandbox", json!({ "pod_sandbox_id": pod.id }));
    assert_eq!(pod.state(), "SANDBOX_NOTREADY");
    assert_eq!(pod.container(&shell)["state"], "CONTAINER_EXITED");
    assert_eq!(host::pids_named("stockade-vmm").len(), 1, "the other pod's");
    pod.remove();
    other.remove();
    node.assert_clean();
}
