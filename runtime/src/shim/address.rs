//! Where a shim listens, and which containers share one: those of a pod, as with runc's shim.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::oci::bundle;

/// Where containerd's shims have their sockets.
pub const DIRECTORY: &str = "/run/containerd/s";

/// The file in a bundle from which containerd learns the shim's address after a restart.
const FILE: &str = "address";

/// The scheme of a UNIX socket.
const SCHEME: &str = "unix://";

/// The annotation with the pod of a container. containerd's CRI plug-in writes it itself, and lets no author of a pod choose it.
const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";

/// The part of config.json that the shim looks at.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    annotations: std::collections::HashMap<String, String>,
    linux: Option<Linux>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Linux {
    cgroups_path: Option<String>,
}

/// What config.json tells the shim.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The container or sandbox by which shims are told apart.
    pub group: String,
    /// Whether the container's cgroup is systemd's to make: its path has the form SLICE:PREFIX:NAME.
    pub is_systemds: bool,
}

impl Place {
    /// The place of the container `id` whose bundle is `bundle`.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn of(bundle: &Path, id: &str) -> anyhow::Result<Self> {
        let path = bundle.join(bundle::CONFIG);
        let text = bundle::read(&path)
            .map_err(|cause| anyhow::anyhow!("cannot read {}: {cause}", path.display()))?;
        Self::parse(&text, id).map_err(|problem| anyhow::anyhow!("{}: {problem}", path.display()))
    }

    fn parse(text: &[u8], id: &str) -> Result<Self, String> {
        let mut config: Config = bundle::parse(text)?;
        let group = config.annotations.remove(SANDBOX).unwrap_or_else(|| id.to_owned());
        let cgroup = config.linux.and_then(|linux| linux.cgroups_path).unwrap_or_default();
        let is_systemds = !cgroup.contains('/') && cgroup.split(':').count() == 3;
        Ok(Self { group, is_systemds })
    }
}

/// The socket of the shim for a group of containers.
pub fn socket(containerd: &str, namespace: &str, group: &str) -> PathBuf {
    let name = Path::new(containerd).join(namespace).join(group);
    let mut digest = String::new();
    for byte in Sha256::digest(name.as_os_str().as_encoded_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(digest, "{byte:02x}");
    }
    Path::new(DIRECTORY).join(digest)
}

/// The address of a socket, as containerd reads it.
pub fn of(socket: &Path) -> String {
    format!("{SCHEME}{}", socket.display())
}

/// Leaves the address in the bundle.
///
/// # Errors
/// write(2)'s.
pub fn write(bundle: &Path, address: &str) -> std::io::Result<()> {
    fs::write(bundle.join(FILE), address)
}

/// The socket that the bundle names.
pub fn read(bundle: &Path) -> Option<PathBuf> {
    let address = fs::read_to_string(bundle.join(FILE)).ok()?;
    let path = PathBuf::from(address.trim_end().strip_prefix(SCHEME)?);
    path.starts_with(DIRECTORY).then_some(path)
}

#[cfg(test)]
#[path = "address_test.rs"]
mod tests;
