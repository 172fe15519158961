//! The config.json of a sandbox that has no image: from the CRI's `PodSandboxConfig`, with what containerd writes for a pause
//! container, so that the runtime finds the pod's network, size, names and cgroup where it always does.
//!
//! A pod's author chooses the annotations: only stockade's own are passed on, which the administrator's configuration judges.

use std::path::Path;

use prost::Message;
use serde_json::{Map, Value, json};

use super::messages::Any;
use super::sandbox_messages::{IdMapping, LinuxPod, NamespaceMode, PodConfig, PodUsers, SelinuxOptions};
use crate::oci::SPEC_VERSION;
use crate::sys::selinux;

/// The type of a pod's configuration.
const POD_CONFIG: &str = "runtime.v1.PodSandboxConfig";

/// The prefix of stockade's own annotations.
const OWN_ANNOTATIONS: &str = "io.stockade.";

/// The end of the name of a parent cgroup that is systemd's.
const SLICE: &str = ".slice";

/// The score that spares the sandbox where its guest has no memory left, as containerd's pause containers have it.
const OOM_SCORE_ADJ: i32 = -998;

/// Weight of the sandbox's own cgroup.
const CPU_SHARES: u64 = 2;

/// What containerd 2 sets in each pod's network unless the pod or containerd's configuration says otherwise. The second needs all
/// groups, which a user namespace does not have.
const UNPRIVILEGED_PORTS: (&str, &str) = ("net.ipv4.ip_unprivileged_port_start", "0");
const UNPRIVILEGED_ICMP: (&str, &str) = ("net.ipv4.ping_group_range", "0 2147483647");

/// Reads the options of CreateSandbox.
///
/// # Errors
/// One line that says what is not understood, or not done.
pub fn parse(options: Option<&Any>) -> anyhow::Result<PodConfig> {
    let Some(options) = options.filter(|options| !options.type_url.is_empty()) else {
        return Ok(PodConfig::default());
    };
    let name = options.type_url.rsplit('/').next().unwrap_or_default();
    if name != POD_CONFIG {
        anyhow::bail!(
            "the sandbox's options are of type {name}; this shim knows {POD_CONFIG}, the CRI's, and none"
        );
    }
    let config = PodConfig::decode(&*options.value)
        .map_err(|error| anyhow::anyhow!("the sandbox's options are no {POD_CONFIG}: {error}"))?;
    let labels = config.linux.as_ref().and_then(|linux| linux.security.as_ref()?.selinux.as_ref());
    if labels.is_some_and(|labels| *labels != SelinuxOptions::default()) && selinux::is_enabled() {
        anyhow::bail!(
            "the pod asks for SELinux options, which containerd's sandboxer \"shim\" turns into no label: \
             use the sandboxer \"podsandbox\" on a host with SELinux"
        );
    }
    Ok(config)
}

/// The specification of the sandbox `id` with this network namespace, whose root is at `root` and whose program is `program`.
pub fn specification(id: &str, config: &PodConfig, netns: &Path, root: &str, program: &str) -> Value {
    let linux = config.linux.clone().unwrap_or_default();
    let modes = linux.security.as_ref().and_then(|security| security.namespaces.clone()).unwrap_or_default();
    let users = modes.user.as_ref().filter(|users| users.mode() == NamespaceMode::Pod);
    let is_nodes_network = modes.network() == NamespaceMode::Node;

    let mut namespaces = vec![json!({ "type": "mount" })];
    let mut own = |kind: &str, is_own: bool| {
        if is_own {
            namespaces.push(json!({ "type": kind }));
        }
    };
    own("pid", modes.pid() != NamespaceMode::Node);
    own("ipc", modes.ipc() != NamespaceMode::Node);
    own("uts", !is_nodes_network);
    own("user", users.is_some());
    if !is_nodes_network {
        namespaces.push(match netns.as_os_str().is_empty() {
            true => json!({ "type": "network" }),
            false => json!({ "type": "network", "path": netns }),
        });
    }
    let mut spec = json!({
        "ociVersion": SPEC_VERSION,
        "root": { "path": root, "readonly": true },
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": [program],
            "cwd": "/",
            "noNewPrivileges": true,
            "oomScoreAdj": OOM_SCORE_ADJ,
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            {
                "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
        ],
        "annotations": annotations(id, config, &linux),
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": cgroups_path(&linux.cgroup_parent, id),
            "resources": { "cpu": { "shares": CPU_SHARES } },
            "sysctl": sysctls(&linux, is_nodes_network, users),
        },
    });
    if !config.hostname.is_empty() && !is_nodes_network {
        spec["hostname"] = json!(config.hostname);
    }
    if let Some(users) = users {
        spec["linux"]["uidMappings"] = mappings(&users.uids);
        spec["linux"]["gidMappings"] = mappings(&users.gids);
    }
    spec
}

fn annotations(id: &str, config: &PodConfig, linux: &LinuxPod) -> Value {
    let own = config.annotations.iter().filter(|(name, _)| name.starts_with(OWN_ANNOTATIONS));
    let mut found: Map<_, _> = own.map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut add = |name: &str, value: String| {
        found.insert(format!("io.kubernetes.cri.{name}"), json!(value));
    };
    add("container-type", "sandbox".to_owned());
    add("sandbox-id", id.to_owned());
    if let Some(metadata) = &config.metadata {
        add("sandbox-name", metadata.name.clone());
        add("sandbox-namespace", metadata.namespace.clone());
        add("sandbox-uid", metadata.uid.clone());
    }
    add("sandbox-log-directory", config.log_directory.clone());
    if let Some(resources) = linux.resources {
        add("sandbox-cpu-period", resources.cpu_period.to_string());
        add("sandbox-cpu-quota", resources.cpu_quota.to_string());
        add("sandbox-cpu-shares", resources.cpu_shares.to_string());
        add("sandbox-memory", resources.memory_limit_in_bytes.to_string());
    }
    found.into()
}

/// The sandbox's cgroup, by containerd's rule.
fn cgroups_path(parent: &str, id: &str) -> String {
    let slice = parent.rsplit('/').next().filter(|name| name.ends_with(SLICE));
    match slice {
        Some(slice) => format!("{slice}:cri-containerd:{id}"),
        None if parent.is_empty() => format!("/k8s.io/{id}"),
        None => format!("{}/{id}", parent.trim_end_matches('/')),
    }
}

fn sysctls(linux: &LinuxPod, is_nodes_network: bool, users: Option<&PodUsers>) -> Value {
    let mut sysctls = linux.sysctls.clone();
    if !is_nodes_network {
        let defaults = [Some(UNPRIVILEGED_PORTS), users.is_none().then_some(UNPRIVILEGED_ICMP)];
        for (name, value) in defaults.into_iter().flatten() {
            sysctls.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    json!(sysctls)
}

fn mappings(list: &[IdMapping]) -> Value {
    let entry = |entry: &IdMapping| json!({ "containerID": entry.container, "hostID": entry.host, "size": entry.length });
    list.iter().map(entry).collect()
}

#[cfg(test)]
#[path = "pod_config_test.rs"]
mod tests;
