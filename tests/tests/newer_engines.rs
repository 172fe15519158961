//! What podman 5, Docker 26 and containerd 1.7 do and Debian 12's do not. `tests/run` runs this file with Debian 13's
//! programs, and with it those tests of other files that `tests/newer-engines` names.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stockade_tests::cli::{Outcome, built, pass};
use stockade_tests::engine::{Docker, Node, PAUSE, Podman, ShimSocket, field};
use stockade_tests::host;
use stockade_tests::kubernetes::{Cri, Pod, Refused, container_config};

/// Longest that an awaited state may take before its test fails.
const LIMIT: Duration = Duration::from_secs(120);

/// A descriptor by its number: podman puts the null device where its own are below that.
#[test]
fn podman_passes_single_descriptors() {
    let podman = Podman::new();
    fs::write(podman.path().join("given"), "given\n").expect("file");
    let given = File::open(podman.path().join("given")).expect("open");
    let null = File::open("/dev/null").expect("open");
    let mut command =
        podman.container_command(&["--rm", "--preserve-fd", "5"], &["sh", "-c", "cat <&5; echo $?"]);
    pass(&mut command, [null.as_fd(), null.as_fd(), given.as_fd()]);
    let outcome = Outcome::of(&mut command, b"").success();
    assert_eq!(outcome.stdout, "given\n0\n", "{outcome:#?}");
    podman.assert_clean();
}

/// Since Docker 23 a runtime is a shim with options, and since 25 `docker info` shows what a runtime says of itself.
#[test]
fn docker_takes_the_runtime_from_a_shims_options_and_asks_for_its_features() {
    let shim = json!({
        "runtimeType": "io.containerd.runc.v2",
        "options": { "BinaryName": built("release/stockade") },
    });
    let docker = Docker::with_runtimes(&json!({ "shim": shim }));
    let info = docker.run(&["info", "--format", "{{json .Runtimes}}"]).success().stdout;
    let info: Value = serde_json::from_str(&info).expect("JSON");
    let features = &info["stockade"]["status"]["org.opencontainers.runtime-spec.features"];
    let features: Value = serde_json::from_str(features.as_str().expect("features")).expect("JSON");
    assert_eq!(features["annotations"]["io.stockade.version"], env!("CARGO_PKG_VERSION"), "{info:#}");

    let outcome = docker.container(&["--rm", "--runtime", "shim"], &["sh", "-c", "uname -r; exit 7"]);
    assert_eq!(outcome.status, 7, "{outcome:#?}");
    assert!(outcome.stdout.ends_with("-stockade\n"), "{outcome:#?}");
    docker.assert_clean();
}

/// `hostUsers: false`, which containerd has since 1.7.
#[test]
fn a_pods_user_namespace_maps_its_files() {
    let mut node = Node::new();
    let cri = Cri::new(&node.socket());
    let users = json!({
        "mode": "POD",
        "uids": [{ "host_id": 200_000, "container_id": 0, "length": 65_536 }],
        "gids": [{ "host_id": 300_000, "container_id": 0, "length": 65_536 }],
    });
    for handler in [Some(node.handler), Node::sandbox_api()].into_iter().flatten() {
        node.handler = handler;
        let pod = Pod::run(&cri, &node, "users", |config| {
            config["linux"]["security_context"]["namespace_options"]["userns_options"] = users.clone();
        });
        let mut config = container_config("shell", &["sh", "-c", "touch /made; exec sleep 1000000"]);
        config["linux"]["security_context"]["namespace_options"]["userns_options"] = users.clone();
        let shell = pod.start(&config);
        assert_eq!(host::pids_named("stockade-vmm").len(), 1, "one VM a pod");
        let map = pod
            .exec(&shell, &["sh", "-c", "tr -s ' ' < /proc/self/uid_map; id -u; stat -c %u:%g /bin /made"]);
        assert_eq!(map, " 0 200000 65536\n0\n0:0\n0:0\n", "{handler}");
        if Some(handler) == Node::sandbox_api() {
            assert_eq!(pod.exec(&shell, &["stat", "-c", "%u:%g", "/etc/resolv.conf"]), "0:0\n");
        }
        pod.remove();
        node.assert_clean();
    }
}

/// A container's program that waits.
const FOREVER: &[&str] = &["sleep", "1000000"];

/// The most that a pod's containers can write to the files that their shim makes for them, in bytes.
const ROOM: u64 = 2 << 20;

/// The address on the pod's interface.
const ADDRESS: &str = "ip addr show eth0 | sed -n 's|.*inet \\([^/]*\\)/.*|\\1|p'";

/// Asks again and again, as the kubelet does, until the answer is what is awaited.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool, Refused>) {
    let begin = Instant::now();
    loop {
        let answer = is_so();
        if matches!(answer, Ok(true)) {
            return;
        }
        assert!(begin.elapsed() < LIMIT, "{what}: {answer:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn kill(pid: i32) {
    // SAFETY: kill takes two integers.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

/// A pod by the sandbox API: its sandbox has no image, and all else is as with a pause container.
#[test]
fn a_pods_sandbox_needs_no_image_by_the_sandbox_api() {
    let Some(handler) = Node::sandbox_api() else {
        return eprintln!("this containerd does not have the sandbox API");
    };
    let mut node = Node::new();
    node.handler = handler;
    let cri = Cri::new(&node.socket());
    // A pause container would need it.
    node.remove_image(PAUSE);
    // Not its network: containerd 2.1 panics there, before it calls the shim (its issue 12983).
    let hosts = Pod::config(&node, "hosts", |config| {
        config["linux"]["security_context"]["namespace_options"]["pid"] = json!("NODE");
    });
    let refused = cri.refusal("RunPodSandbox", json!({ "config": hosts, "runtime_handler": node.handler }));
    assert!(refused.contains("no hostPID"), "{refused}");
    Pod::forget("hosts");
    node.assert_clean();

    // The annotations are its author's, who would like to be in another pod's VM.
    let pod = Pod::run(&cri, &node, "boxed", |config| {
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "other",
            "io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": "other",
        });
        config["linux"]["resources"] = json!({ "memory_limit_in_bytes": 64 << 20 });
    });
    assert_eq!(pod.state(), "SANDBOX_READY");
    assert_eq!(host::pids_named("stockade-vmm").len(), 1);
    assert_eq!(node.stockade(&["list", "--quiet"]).success().stdout.trim(), pod.id);
    let metrics = node.stockade(&["metrics"]).success().stdout;
    assert!(metrics.contains(&pod.id), "{metrics}");
    let address = pod.address();
    let enter = ["-t", &pod.pid().to_string(), "-n", "sh", "-c", ADDRESS].map(str::to_owned);
    assert_eq!(Outcome::of(Command::new("nsenter").args(enter), b"").success().stdout.trim(), address);

    let shell = pod.start(&container_config("shell", &["sh", "-c", "echo a line; exec sleep 1000000"]));
    host::wait_for_text(&pod.log("shell"), "a line");
    let read = "hostname; cat /etc/hostname /etc/resolv.conf; grep -c localhost /etc/hosts > /dev/null && echo hosts";
    assert_eq!(
        pod.exec(&shell, &["sh", "-c", read]),
        "boxed\nboxed\nsearch cluster.local\nnameserver 192.0.2.53\noptions ndots:5\nhosts\n"
    );
    assert_eq!(pod.exec(&shell, &["sh", "-c", ADDRESS]).trim(), address);
    let other = pod.start(&container_config("other", FOREVER));
    pod.exec(&shell, &["sh", "-c", "echo shared > /dev/shm/file"]);
    assert_eq!(pod.exec(&other, &["cat", "/dev/shm/file"]), "shared\n");
    let stats = cri.call("ContainerStats", json!({ "container_id": shell }))["stats"].clone();
    assert!(
        stats["memory"]["working_set_bytes"]["value"].as_u64().is_some_and(|bytes| bytes > 0),
        "{stats:#}"
    );

    let stats = cri.call("PodSandboxStats", json!({ "pod_sandbox_id": pod.id }))["stats"].clone();
    let used = &stats["linux"]["memory"]["working_set_bytes"]["value"];
    assert!(used.as_u64().is_some_and(|bytes| bytes > 0), "{stats:#}");

    // What a container writes to its files does not fill the node's /run.
    let bundle = node.path().join("state/io.containerd.sandbox.controller.v1.shim/k8s.io").join(&pod.id);
    let fill = "dd if=/dev/zero of=/etc/hosts bs=64k count=256 2> /dev/null || echo full";
    assert_eq!(pod.exec(&shell, &["sh", "-c", fill]), "full\n");
    let written = fs::metadata(bundle.join("rootfs/hosts")).expect("the pod's hosts").blocks() * 512;
    assert!(written < ROOM, "{written}");

    // What the CRI plug-in does not call.
    let shim = ShimSocket::of_bundle(&bundle);
    let call = |method: &str, id: &str| {
        shim.call("containerd.runtime.sandbox.v1.Sandbox", method, &field(1, id.as_bytes()))
    };
    assert_eq!(call("PingSandbox", &pod.id), Ok(Vec::new()));
    let metrics = call("SandboxMetrics", &pod.id).expect("metrics");
    assert!(String::from_utf8_lossy(&metrics).contains("io.containerd.cgroups.v2.Metrics"), "{metrics:?}");
    for (method, id, expected) in [
        ("PingSandbox", "other", "does not exist"),
        ("ShutdownSandbox", "other", "does not exist"),
        ("CreateSandbox", "other", "this shim is for"),
        ("CreateSandbox", &pod.id, "exists"),
        ("UpdateSandbox", &pod.id, "no method"),
        ("StopSandbox", "\u{0}", "does not exist"),
    ] {
        let refused = call(method, id).expect_err(method);
        assert!(refused.contains(expected), "{method} of {id:?}: {refused}");
    }

    // containerd starts again, and finds its pod.
    node.restart();
    wait_until("containerd serves", || cri.attempt("Status", json!({})).map(|_| true));
    assert_eq!(pod.state(), "SANDBOX_READY");
    assert_eq!(pod.exec(&shell, &["hostname"]), "boxed\n");
    cri.call("StopPodSandbox", json!({ "pod_sandbox_id": pod.id }));
    assert_eq!(pod.state(), "SANDBOX_NOTREADY");
    assert_eq!(host::pids_named("stockade-vmm"), [] as [i32; 0]);
    pod.remove();
    node.assert_clean();
}

/// The VM of a pod dies, and of another one the shim, which is all that containerd knows of its sandbox.
#[test]
fn nothing_is_left_of_a_dead_pod_by_the_sandbox_api() {
    let Some(handler) = Node::sandbox_api() else {
        return eprintln!("this containerd does not have the sandbox API");
    };
    let mut node = Node::new();
    node.handler = handler;
    let cri = Cri::new(&node.socket());
    for victim in ["stockade-vmm", "containerd-shim"] {
        let pod = Pod::run(&cri, &node, "dead", |_| ());
        let member = pod.start(&container_config("member", FOREVER));
        let (relay, vmm) = (pod.pid(), host::pids_named("stockade-vmm")[0]);
        kill(host::pids_named(victim)[0]);
        [relay, vmm].into_iter().for_each(host::wait_for_end);
        // While containerd cleans up after a shim, it may refuse to answer.
        let name = json!({ "pod_sandbox_id": pod.id });
        wait_until("the pod is not ready", || {
            let answer = cri.attempt("PodSandboxStatus", name.clone())?;
            Ok(answer["status"]["state"] == "SANDBOX_NOTREADY")
        });
        if victim == "stockade-vmm" {
            assert_eq!(pod.wait(&member)["exit_code"], 137);
        }
        wait_until("the pod can be stopped", || cri.attempt("StopPodSandbox", name.clone()).map(|_| true));
        pod.remove();
        if victim == "containerd-shim" {
            host::pids_named("stockade").into_iter().for_each(host::wait_for_end);
            node.remove_forgotten_sockets();
        }
        node.assert_clean();
    }
}
