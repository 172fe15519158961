//! SIGKILL to containerd, its shim, a relay, the VMM or a command of the runtime while a pod lives its life, at points
//! that a printed seed chooses: what the kubelet then does leaves nothing.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stockade_tests::engine::{Node, RUNTIME_ROOT};
use stockade_tests::host;
use stockade_tests::killer::{Numbers, kill_during, recorded};
use stockade_tests::kubernetes::{Cri, Pod, Refused, container_config};

/// How many processes are killed.
const POINTS: usize = 12;

/// Most times that a process is seen before it is killed.
const ROUNDS: usize = 60;

/// Longest that the kubelet may need to get rid of a pod.
const LIMIT: Duration = Duration::from_secs(240);

const VICTIMS: [&str; 5] = ["stockade-vmm", "relay", "containerd-shim", "containerd", "stockade"];

/// The life of a pod, call by call. A call may ask for what earlier ones have answered.
const LIFE: [&str; 8] = [
    "RunPodSandbox",
    "CreateContainer",
    "StartContainer",
    "ExecSync",
    "StopContainer",
    "RemoveContainer",
    "StopPodSandbox",
    "RemovePodSandbox",
];

/// What the calls need of each other.
struct Life {
    config: Value,
    sandbox: Value,
    container: Value,
}

impl Life {
    /// The next call; whether it has succeeded.
    fn call(&mut self, cri: &Cri, method: &str) -> bool {
        let request = match method {
            "RunPodSandbox" => json!({ "config": self.config, "runtime_handler": "stockade" }),
            "CreateContainer" => json!({
                "pod_sandbox_id": self.sandbox, "sandbox_config": self.config,
                "config": container_config("member", &["/bin/sleep", "1000000"]),
            }),
            "ExecSync" => json!({ "container_id": self.container, "cmd": ["true"], "timeout": 60 }),
            "StopPodSandbox" | "RemovePodSandbox" => json!({ "pod_sandbox_id": self.sandbox }),
            _ => json!({ "container_id": self.container }),
        };
        let Ok(answer) = cri.attempt(method, request) else { return false };
        match method {
            "RunPodSandbox" => self.sandbox = answer["pod_sandbox_id"].clone(),
            "CreateContainer" => self.container = answer["container_id"].clone(),
            _ => {}
        }
        true
    }
}

/// Asks until no pod is left, as the kubelet does.
#[track_caller]
fn remove_all(cri: &Cri, what: &str) {
    let begin = Instant::now();
    while let Err(refused) = remove_listed(cri) {
        assert!(begin.elapsed() < LIMIT, "{what}: a pod stays: {refused}");
        thread::sleep(Duration::from_millis(500));
    }
}

/// Stops and removes the pods that there are.
fn remove_listed(cri: &Cri) -> Result<(), Refused> {
    // A server that has just been started does not answer yet.
    let listed = cri.attempt("ListPodSandbox", json!({}))?;
    for pod in listed["items"].as_array().into_iter().flatten() {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            cri.attempt(method, json!({ "pod_sandbox_id": pod["id"] }))?;
        }
    }
    Ok(())
}

#[test]
fn nothing_is_left_whoever_is_killed() {
    let mut node = Node::new();
    let cri = Cri::new(&node.socket());
    let mut numbers = Numbers::new();
    for point in 0..POINTS {
        // Each is a victim as often as any other.
        let victim = VICTIMS[point % VICTIMS.len()];
        let (step, rounds) = (numbers.below(LIFE.len()), numbers.below(ROUNDS));
        let what = format!("point {point}: {victim}, at {} after {rounds} rounds", LIFE[step]);
        eprintln!("{what}");
        let config = Pod::config(&node, "victim", |_| ());
        let mut life = Life { config, sandbox: Value::Null, container: Value::Null };
        for method in &LIFE[..step] {
            assert!(life.call(&cri, method), "{what}: {method} has failed before");
        }
        let containerd = node.pid();
        let find = || match victim {
            "containerd" => Some(containerd),
            "relay" => recorded(Path::new(RUNTIME_ROOT), "relay"),
            name => host::pids_named(name).first().copied(),
        };
        let (succeeded, killed) = kill_during(rounds, find, || life.call(&cri, LIFE[step]));
        eprintln!("    killed {killed:?}; the call has {}", if succeeded { "succeeded" } else { "failed" });
        if victim == "containerd" {
            node.restart();
        }
        remove_all(&cri, &what);
        for name in ["containerd-shim", "stockade"] {
            host::pids_named(name).into_iter().for_each(host::wait_for_end);
        }
        match victim {
            "containerd" => node.remove_forgotten_networks(),
            "containerd-shim" => node.remove_forgotten_sockets(),
            _ => {}
        }
        Pod::forget("victim");
        node.assert_clean();
    }
    let pod = Pod::run(&cri, &node, "next", |_| ());
    let id = pod.start(&container_config("member", &["/bin/sleep", "1000000"]));
    pod.exec(&id, &["true"]);
    pod.remove();
    node.assert_clean();
}
