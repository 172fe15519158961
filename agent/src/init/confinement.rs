//! `process.apparmorProfile` and `process.selinuxLabel`: they apply from the execution of the program on.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sys::stat::Mode,
};
use stockade_protocol::settings::Confinement;

use crate::error::{Context, ErrorKind, Result, error};

/// What will be applied at the end, when the guest's /proc cannot be reached any more.
#[derive(Debug)]
pub struct Pending<'a> {
    proc: OwnedFd,
    confinement: &'a Confinement,
}

/// Keeps the guest's /proc open: the container may have no /proc, or something else in its place.
pub fn prepare(confinement: Option<&Confinement>) -> Result<Option<Pending<'_>>> {
    let Some(confinement) = confinement else { return Ok(None) };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let proc = open("/proc", flags, Mode::empty()).or_internal(|| "open /proc".to_owned())?;
    Ok(Some(Pending { proc, confinement }))
}

impl Pending<'_> {
    /// Makes execve(2) change to the profile or the label.
    pub fn apply(self) -> Result<()> {
        if let Some(profile) = &self.confinement.apparmor_profile {
            let why = "the guest's kernel has no AppArmor, or its policy no such profile";
            let step = || format!("apply process.apparmorProfile {profile:?}");
            self.set("self/attr/apparmor/exec", &format!("exec {profile}"), Errno::ENOENT, why, step)?;
        }
        if let Some(label) = &self.confinement.selinux_label {
            let why = "the guest's SELinux policy does not have it";
            let step = || format!("apply process.selinuxLabel {label:?}");
            self.set("self/attr/exec", label, Errno::EINVAL, why, step)?;
        }
        Ok(())
    }

    fn set(
        &self,
        attribute: &str,
        value: &str,
        unknown: Errno,
        why: &str,
        step: impl Fn() -> String,
    ) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = openat(&self.proc, attribute, flags, Mode::empty());
        let written =
            file.map_err(io::Error::from).and_then(|file| File::from(file).write_all(value.as_bytes()));
        match written {
            Err(cause) if cause.raw_os_error() == Some(unknown as i32) => {
                Err(error(ErrorKind::Spec, format!("{}: {why}", step())))
            }
            written => written.or_spec(step),
        }
    }
}
