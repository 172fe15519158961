//! The bundle of a sandbox that has no image: containerd makes the directory, and the shim puts into it what the sandbox's
//! container and the other containers of the pod need.
//!
//! ```text
//!   BUNDLE/config.json           of the sandbox
//!   BUNDLE/rootfs/               a small file system in memory, which containerd unmounts if nobody else has
//!     root/                      the root of the sandbox: its program, and nothing else
//!     hostname hosts resolv.conf those of the pod, as containerd writes them beside a pause container
//!     shm/                       the pod's /dev/shm
//! ```
//!
//! Containers may write to the last four. What they fill is a file system of their own, and not the host's /run.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use super::messages::Mount;
use super::pod_config;
use super::rootfs::{self, DIRECTORY};
use super::sandbox_messages::{Dns, PodConfig};
use crate::oci::bundle::{self, CONFIG};
use crate::oci::pause;

/// The sandbox's program, in its root.
const PROGRAM: &str = "/pause";

/// Size of the file system with the pod's files, beside the node's /etc/hosts, in bytes.
const ROOM: u64 = 1 << 20;

/// The options of the pod's /dev/shm.
const SHM: &str = "mode=1777,size=65536k";

/// The files that a container gets where its specification does not name another, and whether it is the pod's memory.
const FILES: [(&str, &str); 4] = [
    ("/etc/hostname", "hostname"),
    ("/etc/hosts", "hosts"),
    ("/etc/resolv.conf", "resolv.conf"),
    (SHM_IN_CONTAINER, "shm"),
];

const SHM_IN_CONTAINER: &str = "/dev/shm";

/// Writes the bundle of the sandbox `id`. If it fails, nothing stays mounted.
///
/// # Errors
/// What could not be written.
pub fn write(bundle: &Path, id: &str, config: &PodConfig, netns: &Path) -> anyhow::Result<()> {
    let hosts = fs::read("/etc/hosts").unwrap_or_default();
    let size = ROOM + hosts.len() as u64;
    let options = ["nosuid", "nodev", "mode=0755", &format!("size={size}")].map(str::to_owned);
    let memory = Mount {
        kind: "tmpfs".to_owned(),
        source: "stockade".to_owned(),
        target: String::new(),
        options: options.into(),
    };
    rootfs::mount_all(&[memory], bundle)?;
    let filled = fill(&bundle.join(DIRECTORY), config, &hosts)
        .with_context(|| format!("cannot write the pod's files to {}", bundle.display()));
    let written = filled.and_then(|()| {
        let spec = pod_config::specification(id, config, netns, &format!("{DIRECTORY}/root"), PROGRAM);
        let path = bundle.join(CONFIG);
        fs::write(&path, spec.to_string()).with_context(|| format!("cannot write {}", path.display()))
    });
    written.inspect_err(|_| {
        // The first failure is the one to report.
        let _ = rootfs::unmount_all(bundle);
    })
}

fn fill(directory: &Path, config: &PodConfig, hosts: &[u8]) -> io::Result<()> {
    let root = directory.join("root");
    for path in [root.clone(), root.join("dev"), root.join("proc"), directory.join("shm")] {
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let write = |path: &Path, content: &[u8], mode: u32| {
        fs::write(path, content)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    write(&root.join(PROGRAM.trim_start_matches('/')), &pause::PROGRAM, 0o755)?;
    let hostname = match config.hostname.as_str() {
        "" => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        name => name.to_owned(),
    };
    write(&directory.join("hostname"), format!("{hostname}\n").as_bytes(), 0o644)?;
    write(&directory.join("hosts"), hosts, 0o644)?;
    let resolver = match &config.dns {
        Some(dns) => resolver(dns).into_bytes(),
        None => fs::read("/etc/resolv.conf").unwrap_or_default(),
    };
    write(&directory.join("resolv.conf"), &resolver, 0o644)?;
    let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("shm"), &directory.join("shm"), Some("tmpfs"), flags, Some(SHM))?)
}

/// The text of resolv.conf.
fn resolver(dns: &Dns) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

/// Adds the pod's files to the specification of another container of it, which is in `bundle`: with its sandboxer `shim`, containerd
/// leaves them to the shim.
///
/// # Errors
/// A config.json that is malformed, or cannot be written.
pub fn complete(bundle: &Path, pod: &Path) -> anyhow::Result<()> {
    let path = bundle.join(CONFIG);
    let text = bundle::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut spec: Value = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    add_files(&mut spec, &pod.join(DIRECTORY))
        .map_err(|what| anyhow::anyhow!("{}: {what}", path.display()))?;
    fs::write(&path, spec.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

fn add_files(spec: &mut Value, files: &Path) -> Result<(), &'static str> {
    if !spec.is_object() {
        return Err("it is not an object");
    }
    let is_readonly = spec["root"]["readonly"] == true;
    let [users, groups] = ["uidMappings", "gidMappings"].map(|list| spec["linux"][list].clone());
    if spec["mounts"].is_null() {
        spec["mounts"] = json!([]);
    }
    let mounts = spec["mounts"].as_array_mut().ok_or("mounts is not a list")?;
    for (destination, name) in FILES {
        let is_shm = destination == SHM_IN_CONTAINER;
        // containerd's own /dev/shm is one for each container.
        mounts.retain(|mount| !is_shm || !is_at(mount, destination) || mount["type"] != "tmpfs");
        if mounts.iter().any(|mount| is_at(mount, destination)) {
            continue;
        }
        let access = if is_readonly && !is_shm { "ro" } else { "rw" };
        let mut mount = json!({
            "destination": destination, "type": "bind", "source": files.join(name),
            "options": ["rbind", "rprivate", access],
        });
        if !is_shm && !users.is_null() && !groups.is_null() {
            mount["uidMappings"] = users.clone();
            mount["gidMappings"] = groups.clone();
        }
        mounts.push(mount);
    }
    Ok(())
}

fn is_at(mount: &Value, destination: &str) -> bool {
    mount["destination"].as_str().is_some_and(|given| Path::new(given) == Path::new(destination))
}

#[cfg(test)]
#[path = "pod_bundle_test.rs"]
mod tests;
