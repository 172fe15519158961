//! `Request::SetCpus`: the guest boots with one CPU, and its kernel starts others when it is told to.

use std::{fs, io, path::Path};

use stockade_protocol::agent::Response;

use super::Server;
use crate::{
    boot,
    error::{Context, ErrorKind, Result, error},
};

impl Server {
    /// Starts CPUs, or takes them offline.
    pub(super) fn set_cpus(count: u16) -> Result<Response> {
        if count == 0 {
            return Err(error(ErrorKind::Spec, "a guest has at least one CPU"));
        }
        boot::mount_sysfs()?;
        set(&Path::new(boot::SYSFS).join("devices/system/cpu"), count)?;
        Ok(Response::CpusSet)
    }
}

/// Starts or stops all CPUs except CPU 0, which is always online.
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
