//! `process.apparmorProfile`: it applies from the execution of the program on.

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

use crate::error::{Context, ErrorKind, Result, error};

/// A profile that will be applied at the end, when the guest's /proc cannot be reached any more.
#[derive(Debug)]
pub struct Pending<'a> {
    proc: OwnedFd,
    profile: &'a str,
}

/// Keeps the guest's /proc open: the container may have no /proc, or something else in its place.
pub fn prepare(profile: Option<&str>) -> Result<Option<Pending<'_>>> {
    let Some(profile) = profile else { return Ok(None) };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let proc = open("/proc", flags, Mode::empty()).or_internal(|| "open /proc".to_owned())?;
    Ok(Some(Pending { proc, profile }))
}

impl Pending<'_> {
    /// Makes execve(2) change to the profile.
    pub fn apply(self) -> Result<()> {
        let step = || format!("apply process.apparmorProfile {:?}", self.profile);
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = openat(&self.proc, "self/attr/apparmor/exec", flags, Mode::empty());
        let written = file
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).write_all(format!("exec {}", self.profile).as_bytes()));
        match written {
            Err(cause) if cause.raw_os_error() == Some(Errno::ENOENT as i32) => {
                let why = "the guest's kernel has no AppArmor, or its policy no such profile";
                Err(error(ErrorKind::Spec, format!("{}: {why}", step())))
            }
            written => written.or_spec(step),
        }
    }
}
