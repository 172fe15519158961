//! What is remembered of a container.

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

/// Changes with every boot of the host.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A container, as far as the host remembers it.
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
    /// Whether `create` has come to its end.
    pub complete: bool,
    /// Whether `start` has let its program run. Of an earlier release's container nobody has noted it: most run.
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
    /// The host's cgroup.
    pub cgroup: Option<Cgroup>,
    /// `hooks`, from the first that is run on: the bundle may be gone when the last are due.
    #[serde(default)]
    pub hooks: Hooks,
    /// What its limits ask of its VM.
    #[serde(default)]
    pub demand: Demand,
    /// The size of its VM; `None` for one in another's VM.
    #[serde(default)]
    pub vm_size: Option<VmSize>,
    /// The container whose VM it is in; `None` for one with a VM of its own.
    pub sandbox: Option<String>,
    /// The volumes of its pod that it writes to: their names in the sandbox's share.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// The slots of its disks.
    #[serde(default)]
    pub disks: Vec<u8>,
    /// By which other containers may ask to be in its VM.
    pub namespaces: Vec<KnownNamespace>,
    /// The interfaces that are connected to its VM; `None` where there are none.
    #[serde(default)]
    pub network: Option<Network>,
    /// The template that its VM could have begun as, had there been one; `start` has it made.
    #[serde(default)]
    pub template: Option<Wanted>,
}

fn yes() -> bool {
    true
}

impl Record {
    /// The container whose VM it is in.
    pub fn vm(&self) -> &str {
        self.sandbox.as_deref().unwrap_or(&self.id)
    }

    /// Its directory in the VM's share. No other creation has it: for a while the guest's kernel takes a name for
    /// what it was last, so a member must not have that of an earlier one, as its ID may be.
    pub fn share(&self) -> &str {
        &self.created
    }

    /// Reads one. Of an earlier boot nothing is left but the record: other processes have the PIDs now, and other
    /// containers perhaps the cgroup.
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

/// The host's current boot; empty where the kernel does not tell, and then always the same.
pub fn boot_id() -> &'static str {
    static CURRENT: OnceLock<String> = OnceLock::new();
    CURRENT.get_or_init(|| fs::read_to_string(BOOT_ID).unwrap_or_default().trim_end().to_owned())
}

#[cfg(test)]
#[path = "record_test.rs"]
pub mod tests;
