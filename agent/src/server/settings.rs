//! `Request::Settings`: settings that the node applies to all of its containers.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use nix::mount::{MsFlags, mount};
use stockade_protocol::{
    agent::{Response, SHARES},
    settings::{Handler, Settings},
};

use super::Server;
use crate::{
    error::{Context, Result},
    init::proc_files,
};

/// Where the agent mounts binfmt_misc when it needs it. Its handlers apply to all containers without their own user
/// namespace.
const BINFMT_MISC: &str = "/run/binfmt_misc";

/// Settings of the security module that keeps processes from tracing each other.
const YAMA: &str = "kernel/yama/";

impl Server {
    /// Takes over the settings that this kernel has, too.
    pub(super) fn take_settings(&mut self, settings: &Settings) -> Result<Response> {
        let mut refused = Vec::new();
        for (name, value) in &settings.sysctls {
            if self.memory.take_from_node(name, value) {
                continue;
            }
            // A kernel without Yama is the administrator's choice, and nothing that a container relies on.
            let may_fail = name.starts_with(YAMA);
            if let Err(error) = proc_files::write(format!("sys/{name}"), value)
                && !may_fail
            {
                refused.push(format!(
                    "the guest does not get the node's {} = {value}: {error}",
                    name.replace('/', ".")
                ));
            }
        }
        if !settings.handlers.is_empty() {
            fs::create_dir_all(BINFMT_MISC).or_internal(|| format!("create {BINFMT_MISC}"))?;
            mount(Some("binfmt_misc"), BINFMT_MISC, Some("binfmt_misc"), MsFlags::empty(), None::<&str>)
                .or_internal(|| format!("mount binfmt_misc on {BINFMT_MISC}"))?;
        }
        for handler in &settings.handlers {
            if let Err(error) = register(handler) {
                refused.push(format!(
                    "the guest does not get the node's binfmt_misc handler {}: {error}",
                    handler.name
                ));
            }
        }
        Ok(Response::SettingsTaken(refused))
    }
}

/// Registers a handler. The kernel opens an interpreter of the node by its path on the node, because programs are told
/// that path: for this moment, the interpreter is mounted there.
fn register(handler: &Handler) -> io::Result<()> {
    let register = || fs::write(format!("{BINFMT_MISC}/register"), &handler.line);
    let Some(share) = &handler.share else { return register() };
    let path = Path::new(&handler.interpreter);
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    symlink(Path::new(SHARES).join(share), path)?;
    register().and(fs::remove_file(path))
}
