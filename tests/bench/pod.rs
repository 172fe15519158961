//! A pod's life as the kubelet has it made, through containerd's CRI: the sandbox, one container, and the end of both.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use stockade_tests::engine::{Node, PAUSE};
use stockade_tests::host;
use stockade_tests::kubernetes::{Cri, Pod, container_config};

use crate::measure::{Mark, number_after};

/// What runs besides what the other parts run.
pub const PROGRAMS: [&str; 12] = [
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "ip6tables",
    "iptables",
    "sha256sum",
    "tar",
    "/usr/lib/cni/bridge",
    "/usr/lib/cni/firewall",
    "/usr/lib/cni/host-local",
    "/usr/lib/cni/loopback",
    "/usr/lib/cni/portmap",
];

/// Files that the programs look for: what a pod's `hosts` is made of.
pub const FILES: [&str; 1] = ["/etc/hosts"];

/// Directories that they look for: the interface of the CRI, and iptables' extensions.
pub const DIRECTORIES: [&str; 2] =
    [concat!(env!("CARGO_MANIFEST_DIR"), "/cri"), "/usr/lib/x86_64-linux-gnu/xtables"];

/// The container: it says that it runs, and waits.
const ARGS: [&str; 3] = ["/bin/sh", "-c", "echo ready; exec sleep 1000000"];

/// How long an idle pod may take to give back what it needed to start. The lab's clock runs ahead meanwhile.
const SETTLE: Duration = Duration::from_secs(10);

/// What one life costs: instructions, as TSC ticks without those in which the machine had nothing to do.
pub struct Figures {
    /// RunPodSandbox.
    pub sandbox: u64,
    /// CreateContainer and StartContainer, until that has returned and the container's first line is in its log.
    pub container: u64,
    /// ExecSync of `true` in the container.
    pub exec: u64,
    /// StopPodSandbox with the container running, and RemovePodSandbox.
    pub end: u64,
    /// Nanoseconds of the four in which the machine was idle.
    pub waiting: u64,
    /// What the idle pod takes.
    pub idle: Resident,
}

/// Resident memory of a pod: its processes, its VM, their shim.
pub struct Resident {
    /// All of it, in KiB.
    pub all_kib: u64,
    /// Without what is mapped of files, in KiB: pods share that.
    pub own_kib: u64,
}

/// A node with both runtimes.
pub struct Kubelet {
    cri: Cri,
    node: Node,
}

impl Kubelet {
    /// Starts containerd and makes the image.
    pub fn new() -> Self {
        let node = Node::bare();
        Self { cri: Cri::new(&node.socket()), node }
    }

    /// The life of a pod that a runtime makes, with a memory limit in bytes.
    pub fn measure(&self, runtime: &str, limit: Option<u64>) -> Result<Figures> {
        let call = |method, request| {
            self.cri.attempt(method, request).map_err(|refused| anyhow!("{method}, {runtime}: {refused}"))
        };
        let resources = limit.map_or(json!({}), |bytes| json!({ "memory_limit_in_bytes": bytes }));
        let config =
            Pod::config(&self.node, runtime, |config| config["linux"]["resources"] = resources.clone());
        let mut container = container_config("bench", &ARGS);
        container["image"]["image"] = PAUSE.into();
        container["linux"]["resources"] = resources;
        let log = PathBuf::from(config["log_directory"].as_str().context("the pod's directory of logs")?)
            .join("bench.log");
        let _ = fs::remove_file(&log);

        let begin = Mark::set()?;
        let sandbox = call("RunPodSandbox", json!({ "config": config, "runtime_handler": runtime }))?;
        let sandbox: &Value = &sandbox["pod_sandbox_id"];
        let with_sandbox = Mark::set()?;
        let created = call(
            "CreateContainer",
            json!({ "pod_sandbox_id": sandbox, "config": container, "sandbox_config": config }),
        )?;
        call("StartContainer", json!({ "container_id": created["container_id"] }))?;
        host::wait_for_text(&log, "ready");
        let with_container = Mark::set()?;

        thread::sleep(SETTLE);
        let resident = resident(config["linux"]["cgroup_parent"].as_str().context("the pod's cgroup")?)?;

        let begin_of_exec = Mark::set()?;
        call("ExecSync", json!({ "container_id": created["container_id"], "cmd": ["/bin/true"] }))?;
        let exec = Mark::set()?.since(&begin_of_exec);

        let request = json!({ "pod_sandbox_id": sandbox });
        let idle = Mark::set()?;
        call("StopPodSandbox", request.clone())?;
        call("RemovePodSandbox", request)?;
        let end = Mark::set()?;
        Pod::forget(runtime);
        let (sandbox, container, end) =
            (with_sandbox.since(&begin), with_container.since(&with_sandbox), end.since(&idle));
        Ok(Figures {
            sandbox: sandbox.work,
            container: container.work,
            exec: exec.work,
            end: end.work,
            waiting: sandbox.waiting + container.waiting + exec.waiting + end.waiting,
            idle: resident,
        })
    }
}

/// The resident memory of the processes in a cgroup and below, and of the shim.
fn resident(cgroup: &str) -> Result<Resident> {
    let mut pids = host::pids_named("containerd-shim");
    collect(&Path::new("/sys/fs/cgroup").join(cgroup.trim_start_matches('/')), &mut pids)?;
    let mut sum = Resident { all_kib: 0, own_kib: 0 };
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let words: String = fs::read_to_string(&path).context(path)?.split_whitespace().collect();
        sum.all_kib += number_after(&words, "Pss:")?;
        sum.own_kib += number_after(&words, "Pss_Anon:")?;
    }
    Ok(sum)
}

fn collect(cgroup: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let procs = cgroup.join("cgroup.procs");
    for line in fs::read_to_string(&procs).with_context(|| format!("{}", procs.display()))?.lines() {
        pids.push(line.parse()?);
    }
    for entry in fs::read_dir(cgroup)?.flatten() {
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), pids)?;
        }
    }
    Ok(())
}
