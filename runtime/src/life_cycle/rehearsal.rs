//! Rehearsing a start, to learn to which pages of a template every start writes.
//!
//! A clone of the template makes a container that is like most: it has all that config.json has by default, and its program only waits.
//! Nothing of it is anybody's, and nothing of it is left on the host: its root and the sockets of the VM are file systems that
//! only this process has, and the VM ends with this process.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use nix::sys::stat::{Mode, mkdirat};
use oci_spec::runtime::Spec;
use scopeguard::guard;
use serde_json::{Value, json};
use stockade_protocol::agent::ProcessId;
use stockade_sys::mount_api::{attr, new_file_system};

use crate::lower::plan::{Late, Slots};
use crate::lower::seccomp::Profile;
use crate::lower::{self, Allowed, ROOTFS_SHARE};
use crate::oci::bundle::Bundle;
use crate::oci::container_id::ContainerId;
use crate::oci::pause;
use crate::state::sandbox::Peers;
use crate::sys::signals;
use crate::vm::agent::{Connection, ProcessConnections, call};
use crate::vm::template::{Group, Store, hot};
use crate::vm::{Launch, Vm};

/// The container's ID, its VMM's name in `ps`, and its directory in the share.
const ID: &str = "rehearsal";

/// The container's program, in its root.
const PROGRAM: &str = "pause";

/// Starts a container with this config.json in a VM that begins as its template, and keeps beside the template to which pages the
/// start has written. Templates take at most `most` bytes in all.
///
/// # Errors
/// What failed: the template is used without it.
pub fn rehearse(store: &Store, launch: Launch, mib: u32, most: u64, config: &str) -> anyhow::Result<()> {
    let files = store.find(&launch.template_key()).context("the template is gone")?;
    let (ram, place) = (files.ram.try_clone()?, files.directory.clone());
    let id: ContainerId = ID.parse()?;
    let bundle = bundle(config)?;
    let lowered = lower::lower(&bundle, &id, ID, &Peers::default(), Allowed::default(), false)?;
    let seccomp = lowered.plan.seccomp.iter().map(Profile::compile).collect::<Result<_, _>>()?;
    let late = Late {
        terminal: None,
        streams: Vec::new(),
        env: &[],
        seccomp,
        start_hooks: Vec::new(),
        slots: Slots::default(),
    };
    let container = lowered.plan.container(late);

    let sockets = file_system("mode=0700,size=1m", attr::NOEXEC)?;
    let placement = Group::place(mib, most);
    let interrupts = signals::block_all().context("cannot block signals")?;
    let mut pid = 0;
    let remember = |vmm: &crate::sys::process::Child| {
        pid = vmm.pid;
        Ok(())
    };
    let mut machine = launch.beginning_as(files).start(&id, sockets.as_fd(), placement, remember)?;
    machine.watch_with(sockets.as_fd(), interrupts).context("cannot watch the VM")?;
    let mut vm = guard(Vm::Own(machine), |vm| vm.release().iter().for_each(|vmm| vmm.kill()));
    let vm = &mut *vm;
    let mut files = vm.files().map_err(|error| vm.explain(error))?;
    let trees = vec![(ROOTFS_SHARE.to_owned(), root()?)];
    files.add_share(ID, trees, vm).map_err(|error| vm.explain(error))?;
    if let Vm::Own(machine) = vm {
        machine.agent_ready()?;
        if !machine.is_clone() {
            bail!("the VM has booted");
        }
    }
    let init = ProcessId { container: container.id.clone(), exec: None };
    let streams = container.process.streams.clone();
    let mut control = Connection::open_newest(sockets.as_fd(), vm)?;
    control.call(call::Create(container), vm)?;
    let _process = ProcessConnections::open(sockets.as_fd(), &init, None, &streams, vm)?;
    control.call(call::Start(init), vm)?;
    let pages = hot::written(pid, &ram).context("the pages that the start has written to")?;
    Ok(place.map_or(Ok(()), |place| Store::keep_hot(&place, &pages))?)
}

/// A bundle of this config.json with the program that waits, without a directory.
fn bundle(config: &str) -> anyhow::Result<Bundle> {
    let mut config: Value = serde_json::from_str(config)?;
    config["process"]["args"] = json!([format!("/{PROGRAM}")]);
    config["process"]["terminal"] = json!(false);
    let spec: Spec = serde_json::from_value(config)?;
    Ok(Bundle {
        path: PathBuf::from("/"),
        spec,
        rootfs: PathBuf::from("/"),
        hw_config: None,
        warnings: Vec::new(),
    })
}

/// The container's root file system.
fn root() -> anyhow::Result<OwnedFd> {
    let root = file_system("mode=0755,size=1m", 0)?;
    for directory in ["dev", "proc", "sys"] {
        mkdirat(&root, directory, Mode::from_bits_truncate(0o755))?;
    }
    let mut options = OpenOptions::new();
    let program = format!("/proc/self/fd/{}/{PROGRAM}", root.as_raw_fd());
    let mut program: File = options.write(true).create_new(true).mode(0o755).open(program)?;
    program.write_all(&pause::PROGRAM)?;
    Ok(root)
}

fn file_system(options: &str, attributes: u64) -> anyhow::Result<OwnedFd> {
    new_file_system("tmpfs", "stockade", options, attr::NOSUID | attr::NODEV | attributes)
        .map_err(io::Error::from)
        .context("cannot make a file system")
}
