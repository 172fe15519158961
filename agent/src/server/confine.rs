//! `Request::Confine` and `Request::Selinux`: what security modules apply to the process that is made next, and to all.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
};

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
    poller::Token,
    selinux,
};

impl Server {
    /// Loads the AppArmor policy, and keeps profile and labels until this connection has the process made, or ends. Other
    /// connections make processes of the same container at the same time.
    pub(super) fn confine(
        &mut self,
        connection: Token,
        process: ProcessId,
        mut confinement: Confinement,
    ) -> Result<Response> {
        if let (Some(profile), Some(policy)) =
            (&confinement.apparmor_profile, confinement.apparmor_policy.take())
        {
            self.load_apparmor(profile, &policy)?;
        }
        if let Some(label) = &confinement.selinux_label {
            selinux::check(label)?;
        }
        self.confinements.insert(connection, (process, confinement));
        Ok(Response::Confined)
    }

    /// Loads an AppArmor policy, unless the kernel has this profile from the same one: it takes long to replace a profile,
    /// and an engine's probes come every second.
    fn load_apparmor(&mut self, profile: &str, policy: &[u8]) -> Result<()> {
        let mut hasher = DefaultHasher::new();
        policy.hash(&mut hasher);
        let content = hasher.finish();
        if self.policies.get(profile) == Some(&content) {
            return Ok(());
        }
        load(policy)?;
        // It may have replaced profiles that came from others.
        self.policies.retain(|known, _| !policy.windows(known.len()).any(|part| part == known.as_bytes()));
        self.policies.insert(profile.to_owned(), content);
        Ok(())
    }

    /// What applies to a process that this connection has made.
    pub(super) fn take_confinement(&mut self, connection: Token, process: &ProcessId) -> Option<Confinement> {
        let (_, confinement) = self.confinements.remove(&connection).filter(|(known, _)| known == process)?;
        Some(confinement)
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

#[cfg(test)]
mod tests {
    use stockade_protocol::agent::{Purpose, Request};

    use super::{super::tests::Guest, *};

    #[test]
    fn what_confines_a_process_belongs_to_the_connection_that_has_said_it() {
        let mut guest = Guest::new();
        let id = |name: &str| ProcessId { container: "c".to_owned(), exec: Some(name.to_owned()) };
        let mut confine = |name: &str| {
            let confinement = Confinement {
                apparmor_profile: Some(name.to_owned()),
                apparmor_policy: None,
                selinux_label: None,
                mount_label: None,
            };
            let mut host = guest.greet(Purpose::Control).unwrap();
            let request = Request::Confine { process: id(name), confinement: Box::new(confinement) };
            assert_eq!(guest.ask(&mut host, request), Response::Confined);
            (host, guest.server.connections.keys().copied().max().unwrap())
        };
        let (_first, of_first) = confine("first");
        let (_second, of_second) = confine("second");
        let (third, of_third) = confine("third");
        drop(third);
        guest.settle();
        let mut profile = |connection, name| {
            let taken = guest.server.take_confinement(connection, &id(name));
            taken.and_then(|confinement| confinement.apparmor_profile)
        };
        assert_eq!(profile(of_first, "first").as_deref(), Some("first"));
        assert_eq!(profile(of_first, "first"), None);
        assert_eq!(profile(of_second, "first"), None);
        assert_eq!(profile(of_third, "third"), None);
    }
}
