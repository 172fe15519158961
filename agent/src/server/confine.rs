//! `Request::Confine` and `Request::Selinux`: what security modules apply to the process that is made next, and to all.

use std::fs;

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
};
use stockade_protocol::{
    agent::{ProcessId, Response},
    settings::{Confinement, SelinuxPolicy},
};

use super::Server;
use crate::{
    boot,
    error::{Context, ErrorKind, Result, error},
    selinux,
};

impl Server {
    /// Loads the AppArmor policy, and keeps profile and labels until the process is made.
    pub(super) fn confine(&mut self, process: ProcessId, mut confinement: Confinement) -> Result<Response> {
        if let Some(policy) = confinement.apparmor_policy.take() {
            load(&policy)?;
        }
        if let Some(label) = &confinement.selinux_label {
            selinux::check(label)?;
        }
        // That of a process that was never made is forgotten at the next request.
        self.confinements.retain(|known, _| known.container != process.container);
        self.confinements.insert(process, confinement);
        Ok(Response::Confined)
    }

    /// Loads the SELinux policy. Containers that were there before would have the label of nobody.
    pub(super) fn load_selinux(&mut self, policy: &SelinuxPolicy) -> Result<Response> {
        if !self.containers.is_empty() {
            return Err(error(ErrorKind::WrongState, "an SELinux policy comes before the first container"));
        }
        selinux::load(policy)?;
        Ok(Response::SelinuxLoaded)
    }
}

/// Loads an AppArmor policy into the guest's kernel, or replaces the one of existing profiles.
fn load(policy: &[u8]) -> Result<()> {
    boot::mount_sysfs()?;
    let directory = format!("{}/kernel/security", boot::SYSFS);
    let file = format!("{directory}/apparmor/.replace");
    if !fs::exists(&file).unwrap_or(false) {
        match mount(
            Some("securityfs"),
            directory.as_str(),
            Some("securityfs"),
            MsFlags::empty(),
            None::<&str>,
        ) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(Errno::ENOENT | Errno::ENODEV) => return Err(without_apparmor()),
            mounted => mounted.or_internal(|| "mount securityfs".to_owned())?,
        }
    }
    if !fs::exists(&file).unwrap_or(false) {
        return Err(without_apparmor());
    }
    // The kernel takes a policy in one write, and its log says why it refuses one.
    fs::write(&file, policy).or_spec(|| "load the AppArmor policy into the guest's kernel".to_owned())
}

fn without_apparmor() -> crate::error::AgentError {
    error(ErrorKind::Spec, "the guest's kernel has no AppArmor")
}
