//! The table `[selinux]`: the policy that guests load.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The keys of [`Selinux`].
pub(super) const KEYS: [&str; 3] = ["policy", "mode", "agent"];

/// [`Selinux::policy`] for the policy of the host.
pub const HOST: &str = "host";

/// The parameter of the guest's kernel that lists security modules, and its value for a guest with a policy. One of SELinux
/// and AppArmor can run.
const PARAMETER: &str = "lsm=";
const MODULES: &str = "landlock,yama,selinux";

/// What guests do with SELinux.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Selinux {
    /// The policy in binary form: an absolute path, or [`HOST`].
    pub policy: PathBuf,
    /// Whether it is enforced; `None` for what the host does, and for enforcing where the host has no SELinux.
    pub mode: Option<Mode>,
    /// The label of the agent; `None` for the one that the policy gives to the kernel.
    pub agent: Option<String>,
}

/// What happens when something is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is denied.
    Enforcing,
    /// It is logged.
    Permissive,
}

impl Selinux {
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.policy.is_absolute() && self.policy != Path::new(HOST) {
            return Err(format!(
                "selinux.policy: {} is neither an absolute path nor \"{HOST}\"",
                self.policy.display()
            ));
        }
        match self.agent.as_deref().filter(|label| !is_label(label)) {
            Some(label) => Err(format!("selinux.agent: {label:?} is not a label (USER:ROLE:TYPE[:LEVEL])")),
            None => Ok(()),
        }
    }
}

/// Whether a text has the form of a label, and can stand in mount options.
pub fn is_label(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:,-".contains(&byte);
    text.len() < 4096 && text.split(':').count() >= 3 && text.bytes().all(is_part)
}

/// Kernel parameters with which the guest's kernel starts SELinux, unless they choose modules themselves.
pub(super) fn with_selinux(parameters: &str) -> String {
    if parameters.split_ascii_whitespace().any(|parameter| parameter.starts_with(PARAMETER)) {
        return parameters.to_owned();
    }
    format!("{parameters} {PARAMETER}{MODULES}").trim_start().to_owned()
}
