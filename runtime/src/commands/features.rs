//! `stockade features`: the runtime specification's "Features", as runc prints it.
//!
//! Where the code has a table of what it understands, that table is printed. What is accepted with a warning only is
//! not listed.

use std::io::{self, Write};

use clap::Args;
use oci_spec::runtime::LinuxSeccompFilterFlag;
use serde_json::{Value, json};

use crate::check::version;
use crate::lower::{self, seccomp};
use crate::oci::SPEC_VERSION;

/// Print as JSON which parts of config.json this runtime can apply.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade features
  stockade features | jq .linux.namespaces")]
pub struct Features;

impl Features {
    /// Prints the features.
    ///
    /// # Errors
    /// When it cannot be printed.
    pub fn run(self) -> anyhow::Result<()> {
        Ok(writeln!(io::stdout(), "{:#}", features())?)
    }
}

/// The features in the form of the runtime specification.
pub fn features() -> Value {
    let off = json!({ "enabled": false });
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": lower::HOOKS,
        "mountOptions": lower::mount_option_names(),
        "linux": {
            "namespaces": lower::NAMESPACES,
            "capabilities": &lower::CAPABILITIES[..],
            "cgroup": { "v1": false, "v2": true, "systemd": true, "systemdUser": false, "rdma": false },
            "seccomp": seccomp(),
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": off,
            "memoryPolicy": {
                "modes": lower::MEMORY_POLICY_MODES.map(|(mode, _)| mode),
                "flags": lower::MEMORY_POLICY_FLAGS.map(|(flag, _)| flag),
            },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": off,
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "false",
            "io.stockade.version": version::RUNTIME,
            "io.stockade.isolation": "kvm",
        },
        "potentiallyUnsafeConfigAnnotations": [],
    })
}

fn seccomp() -> Value {
    json!({
        "enabled": true,
        "actions": seccomp::ACTIONS,
        "operators": seccomp::OPERATORS,
        "archs": seccomp::ARCHITECTURES,
        "knownFlags": [
            LinuxSeccompFilterFlag::SeccompFilterFlagLog,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow,
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv,
        ],
        "supportedFlags": seccomp::FLAGS.map(|(flag, _)| flag),
    })
}

#[cfg(test)]
#[path = "features_test.rs"]
mod tests;
