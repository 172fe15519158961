//! `process.apparmorProfile`: takes hold when the program is executed.

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

/// A profile that is to be applied, once all is done that needs the guest's /proc no more.
#[derive(Debug)]
pub struct Pending<'a> {
    proc: OwnedFd,
    profile: &'a str,
}

/// Keeps the guest's /proc: the container may have none, or another thing in its place.
pub fn prepare(profile: Option<&str>) -> Result<Option<Pending<'_>>> {
    let Some(profile) = profile else { return Ok(None) };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let proc = open("/proc", flags, Mode::empty()).or_internal(|| "open /proc".to_owned())?;
    Ok(Some(Pending { proc, profile }))
}

impl Pending<'_> {
    /// Has execve change to the profile.
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
