//! The record of a container.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::known_namespace::KnownNamespace;
use crate::cgroup::Cgroup;
use crate::network::Network;
use crate::oci::hooks::Hooks;
use crate::sys::process::ProcessRef;
use crate::vm::sizing::{Demand, VmSize};
use crate::vm::template::Wanted;

/// The file with an ID that changes with every boot of the host.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the host saves about a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its ID.
    pub id: String,
    /// Directory of its bundle.
    pub bundle: PathBuf,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// When it was created: RFC 3339 with nanoseconds.
    pub created: String,
    /// config.json's annotations.
    pub annotations: HashMap<String, String>,
    /// User ID of its creator.
    pub owner: u32,
    /// The boot of the host in which it was created.
    pub boot_id: String,
    /// Whether `create` has finished.
    pub complete: bool,
    /// Whether `start` has let its program run. An earlier release did not record that; its containers count as
    /// started, because most are.
    #[serde(default = "yes")]
    pub started: bool,
    /// Whether its processes are frozen.
    #[serde(default)]
    pub paused: bool,
    /// The relay of its init.
    pub relay: Option<ProcessRef>,
    /// Its VM.
    pub vmm: Option<ProcessRef>,
    /// Its VM's file server.
    #[serde(default)]
    pub files: Option<ProcessRef>,
    /// Its cgroup on the host.
    pub cgroup: Option<Cgroup>,
    /// `hooks`, from the moment when the first one is run: the bundle may be gone when the last ones are due.
    #[serde(default)]
    pub hooks: Hooks,
    /// What its limits ask of its VM.
    #[serde(default)]
    pub demand: Demand,
    /// The size of its VM; `None` for a container in another's VM.
    #[serde(default)]
    pub vm_size: Option<VmSize>,
    /// The container whose VM it is in; `None` for a container with its own VM.
    pub sandbox: Option<String>,
    /// The volumes of its pod that it writes to: their names in the sandbox's share.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// The slots of its disks.
    #[serde(default)]
    pub disks: Vec<u8>,
    /// The namespaces by which other containers may ask to be in its VM.
    pub namespaces: Vec<KnownNamespace>,
    /// The interfaces that are connected to its VM; `None` where there are none.
    #[serde(default)]
    pub network: Option<Network>,
    /// The template that its VM could have begun as, had there been one; `start` has it made.
    #[serde(default)]
    pub template: Option<Wanted>,
    /// What its VM has of SELinux; `None` without a policy.
    #[serde(default)]
    pub selinux: Option<SharesLabel>,
}

/// The label of the files that a VM shares with the host; empty for what the policy says.
pub type SharesLabel = String;

fn yes() -> bool {
    true
}

impl Record {
    /// The ID of the container whose VM it is in.
    pub fn vm(&self) -> &str {
        self.sandbox.as_deref().unwrap_or(&self.id)
    }

    /// Its directory in the VM's share, whose name is unique for each creation: the guest's kernel caches names for a
    /// while, so a member must not get the name of an earlier member, whose ID may be the same.
    pub fn share(&self) -> &str {
        &self.created
    }

    /// Parses a record. If it is from an earlier boot, nothing else is left of the container: other processes have the
    /// PIDs now, and other containers may have the cgroup.
    pub(super) fn parse(text: &[u8]) -> serde_json::Result<Self> {
        let record: Self = serde_json::from_slice(text)?;
        if record.boot_id == boot_id() {
            return Ok(record);
        }
        Ok(Self {
            relay: None,
            vmm: None,
            files: None,
            cgroup: None,
            sandbox: None,
            namespaces: Vec::new(),
            network: None,
            ..record
        })
    }
}

/// The host's current boot; always empty if the kernel does not tell.
pub fn boot_id() -> &'static str {
    static CURRENT: OnceLock<String> = OnceLock::new();
    CURRENT.get_or_init(|| fs::read_to_string(BOOT_ID).unwrap_or_default().trim_end().to_owned())
}

#[cfg(test)]
#[path = "record_test.rs"]
pub mod tests;
