//! `Request::SetCpus`: the guest boots with one CPU, and its kernel starts others when it is told to.

use std::{fs, io, path::Path};

use nix::mount::{MsFlags, mount};
use stockade_protocol::agent::Response;

use super::Server;
use crate::error::{Context, ErrorKind, Result, error};

/// Where the agent has sysfs, once it needs it.
const SYSFS: &str = "/run/sys";

impl Server {
    /// Starts CPUs, or lets go of them.
    pub(super) fn set_cpus(count: u16) -> Result<Response> {
        if count == 0 {
            return Err(error(ErrorKind::Spec, "a guest has at least one CPU"));
        }
        mount_sysfs()?;
        set(&Path::new(SYSFS).join("devices/system/cpu"), count)?;
        Ok(Response::CpusSet)
    }
}

fn mount_sysfs() -> Result<()> {
    match fs::create_dir(SYSFS) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.or_internal(|| format!("create {SYSFS}"))?,
    }
    // There is one for all: where a container was the first to mount it, read-only, it is so as a whole until it is mounted
    // again. The container's mount stays what it is.
    mount(Some("sysfs"), SYSFS, Some("sysfs"), MsFlags::empty(), None::<&str>)
        .and_then(|()| mount(None::<&str>, SYSFS, None::<&str>, MsFlags::MS_REMOUNT, None::<&str>))
        .or_internal(|| format!("mount sysfs on {SYSFS}"))
}

/// CPU 0 is always there.
fn set(directory: &Path, count: u16) -> Result<()> {
    for cpu in 1.. {
        let file = directory.join(format!("cpu{cpu}/online"));
        let is_wanted = cpu < count;
        let now = match fs::read_to_string(&file) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && !is_wanted => return Ok(()),
            read => read.or_internal(|| format!("find CPU {cpu} of the guest"))?,
        };
        if (now.trim_end() == "1") != is_wanted {
            let (value, verb) = if is_wanted { ("1", "start") } else { ("0", "stop") };
            fs::write(&file, value).or_internal(|| format!("{verb} CPU {cpu} of the guest"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "set_cpus_test.rs"]
mod tests;
