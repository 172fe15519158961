//! A pod as the kubelet makes one.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::{Node, WEB};
use serde_json::{Value, json};

use super::client::Cri;
use super::stream::Streams;

/// nginx in the foreground.
pub const WEB_ARGS: &[&str] = &["/usr/sbin/nginx"];

/// Longest that an awaited state may take before its test fails.
const LIMIT: Duration = Duration::from_secs(120);

/// The parent of the pods' cgroups.
const CGROUPS: &str = "/kubepods";

/// A pod, whose cgroup goes with the value.
pub struct Pod<'a> {
    cri: &'a Cri,
    /// The sandbox's ID.
    pub id: String,
    /// What it was asked for with.
    pub config: Value,
}

impl<'a> Pod<'a> {
    /// Runs the sandbox, with stockade and a configuration that is edited before.
    #[track_caller]
    pub fn run(cri: &'a Cri, node: &Node, name: &str, edit: impl FnOnce(&mut Value)) -> Self {
        let config = Self::config(node, name, edit);
        let request = json!({ "config": config, "runtime_handler": node.handler });
        let id = string(&cri.call("RunPodSandbox", request)["pod_sandbox_id"]);
        Self { cri, id, config }
    }

    /// What the kubelet asks for a sandbox with.
    pub fn config(node: &Node, name: &str, edit: impl FnOnce(&mut Value)) -> Value {
        let parent = format!("{CGROUPS}/{name}");
        // The kubelet makes it, and keeps it until the pod is gone.
        fs::create_dir_all(format!("/sys/fs/cgroup{parent}")).expect("the pod's cgroup");
        let logs = node.path().join("logs").join(name);
        fs::create_dir_all(&logs).expect("directory of logs");
        let mut config = json!({
            "metadata": { "name": name, "uid": format!("uid-{name}"), "namespace": "default", "attempt": 0 },
            "hostname": name,
            "log_directory": logs,
            "dns_config": { "servers": ["192.0.2.53"], "searches": ["cluster.local"], "options": ["ndots:5"] },
            "port_mappings": [],
            "labels": { "app": name },
            "annotations": {},
            "linux": {
                "cgroup_parent": parent,
                "security_context": { "namespace_options": { "network": "POD", "pid": "CONTAINER", "ipc": "POD" } },
                "sysctls": {},
            },
        });
        edit(&mut config);
        config
    }

    /// Removes the cgroup that a pod which was refused would have had.
    pub fn forget(name: &str) {
        fs::remove_dir(format!("/sys/fs/cgroup{CGROUPS}/{name}")).expect("remove the pod's cgroup");
    }

    /// Its address.
    pub fn address(&self) -> String {
        let status = self.cri.call("PodSandboxStatus", json!({ "pod_sandbox_id": self.id }));
        string(&status["status"]["network"]["ip"])
    }

    /// Its state: `SANDBOX_READY` or `SANDBOX_NOTREADY`.
    pub fn state(&self) -> String {
        string(&self.cri.call("PodSandboxStatus", json!({ "pod_sandbox_id": self.id }))["status"]["state"])
    }

    /// Creates a container; its ID.
    #[track_caller]
    pub fn create(&self, config: &Value) -> String {
        string(&self.cri.call("CreateContainer", self.request(config))["container_id"])
    }

    /// What creates a container.
    pub fn request(&self, config: &Value) -> Value {
        json!({ "pod_sandbox_id": self.id, "config": config, "sandbox_config": self.config })
    }

    /// Creates and starts a container; its ID.
    #[track_caller]
    pub fn start(&self, config: &Value) -> String {
        let id = self.create(config);
        self.cri.call("StartContainer", json!({ "container_id": id }));
        id
    }

    /// A container's log.
    pub fn log(&self, name: &str) -> PathBuf {
        PathBuf::from(self.config["log_directory"].as_str().expect("a path")).join(format!("{name}.log"))
    }

    /// Runs a command in a container; its output.
    #[track_caller]
    pub fn exec(&self, container: &str, args: &[&str]) -> String {
        let answer =
            self.cri.call("ExecSync", json!({ "container_id": container, "cmd": args, "timeout": 120 }));
        assert_eq!(answer["exit_code"], 0, "{args:?}: {answer:#}");
        string(&answer["stdout"])
    }

    /// Opens the streams of a command in a container.
    #[track_caller]
    pub fn exec_streams(&self, container: &str, args: &[&str], tty: bool) -> Streams {
        let request = json!({
            "container_id": container, "cmd": args, "tty": tty, "stdin": true, "stdout": true, "stderr": !tty,
        });
        Streams::open(self.cri.call("Exec", request)["url"].as_str().expect("an address"))
    }

    /// A container's status.
    pub fn container(&self, id: &str) -> Value {
        self.cri.call("ContainerStatus", json!({ "container_id": id }))["status"].clone()
    }

    /// Waits for a container's end; its status.
    #[track_caller]
    pub fn wait(&self, id: &str) -> Value {
        // This CRI has no events: the kubelet asks again and again.
        let begin = Instant::now();
        loop {
            let status = self.container(id);
            if status["state"] == "CONTAINER_EXITED" {
                return status;
            }
            assert!(begin.elapsed() < LIMIT, "it has not ended within {LIMIT:?}: {status:#}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The host's PID of the sandbox.
    pub fn pid(&self) -> i32 {
        pid(&self.cri.call("PodSandboxStatus", json!({ "pod_sandbox_id": self.id, "verbose": true })))
    }

    /// The host's PID of a container.
    pub fn container_pid(&self, id: &str) -> i32 {
        pid(&self.cri.call("ContainerStatus", json!({ "container_id": id, "verbose": true })))
    }

    /// Stops a container, at once where it does not end, and removes it.
    #[track_caller]
    pub fn remove_container(&self, id: &str) {
        self.cri.call("StopContainer", json!({ "container_id": id, "timeout": 0 }));
        self.cri.call("RemoveContainer", json!({ "container_id": id }));
    }

    /// Stops and removes it.
    #[track_caller]
    pub fn remove(self) {
        self.cri.call("StopPodSandbox", json!({ "pod_sandbox_id": self.id }));
        self.cri.call("RemovePodSandbox", json!({ "pod_sandbox_id": self.id }));
        Self::forget(self.config["metadata"]["name"].as_str().expect("a name"));
    }
}

/// What the kubelet asks for a container with.
pub fn container_config(name: &str, args: &[&str]) -> Value {
    json!({
        "metadata": { "name": name, "attempt": 0 },
        "image": { "image": WEB },
        "command": args,
        "working_dir": "/",
        "envs": [{ "key": "POD", "value": "yes" }],
        "mounts": [],
        "labels": {},
        "annotations": {},
        "log_path": format!("{name}.log"),
        "linux": {
            "resources": { "cpu_period": 100_000, "oom_score_adj": 1000 },
            "security_context": {
                "namespace_options": { "network": "POD", "pid": "CONTAINER", "ipc": "POD" },
                "masked_paths": ["/proc/kcore"],
                "readonly_paths": ["/proc/sys"],
            },
        },
    })
}

/// The PID in what containerd adds to a status.
fn pid(answer: &Value) -> i32 {
    let info: Value =
        serde_json::from_str(answer["info"]["info"].as_str().expect("information")).expect("JSON");
    info["pid"].as_i64().and_then(|pid| pid.try_into().ok()).expect("a PID")
}

#[track_caller]
fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
