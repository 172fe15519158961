//! What the host gives to its containers in addition to config.json: settings of its kernel, and the policies of its
//! security modules.

use serde::{Deserialize, Serialize};

/// The node's settings, for the guest's kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Paths below /proc/sys with their values, in the order in which they are to be written.
    pub sysctls: Vec<(String, String)>,
    /// Handlers of binfmt_misc, in the order in which they are to be registered.
    pub handlers: Vec<Handler>,
}

/// A handler of binfmt_misc.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handler {
    /// Its name.
    pub name: String,
    /// The line to write to binfmt_misc's `register`.
    pub line: String,
    /// Path of the interpreter that the line names.
    pub interpreter: String,
    /// Path of that interpreter below the share's root; `None` where each container has its own.
    pub share: Option<String>,
}

/// What security modules apply to one process, which is made next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The AppArmor profile under which the process executes its program.
    pub apparmor_profile: Option<String>,
    /// The compiled policy with this profile, unless the guest has it already.
    pub apparmor_policy: Option<Vec<u8>>,
    /// The SELinux label with which the process executes its program.
    pub selinux_label: Option<String>,
    /// The SELinux label of the file systems that are made for the container.
    pub mount_label: Option<String>,
}

/// The SELinux policy of a guest, which is loaded once, before its first container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelinuxPolicy {
    /// The policy in the kernel's binary form.
    pub policy: Vec<u8>,
    /// Whether what it forbids is denied, and not only logged.
    pub is_enforcing: bool,
    /// The label that the agent takes; `None` for the one that the policy gives to the kernel.
    pub agent: Option<String>,
    /// The label of all files that are shared with the host; `None` for what the policy says.
    pub shares: Option<String>,
}
