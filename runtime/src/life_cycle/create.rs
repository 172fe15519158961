//! Creating a container: everything that can be checked is checked before anything is made.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;

use super::creation::Draft;
use super::from_caller::FromCaller;
use crate::config::Config;
use crate::log;
use crate::lower::vm::Fixed;
use crate::lower::{self, Allowed, ContainerPlan};
use crate::oci::bundle::Bundle;
use crate::oci::container_id::ContainerId;
use crate::oci::hooks::Hooks;
use crate::options::Globals;
use crate::relay::Relay;
use crate::state::sandbox::Peers;
use crate::state::{self, Folder, Record, Root};
use crate::sys::process::{Pidfd, ProcessRef};
use crate::sys::signals;
use crate::sys::terminal;
use crate::vm::sizing::{self, Demand, VmSize};
use crate::vm::{Launch, Vm};

/// What is to be created.
#[derive(Debug)]
pub struct Request<'a> {
    /// Options of every command.
    pub globals: &'a Globals,
    /// The container's ID.
    pub id: &'a ContainerId,
    /// The bundle's folder.
    pub bundle: &'a Path,
    /// Another file than the bundle's config.json.
    pub config: Option<&'a Path>,
    /// Where the relay's PID goes.
    pub pid_file: Option<&'a Path>,
    /// Where the terminal's master goes.
    pub console_socket: Option<&'a Path>,
    /// Where the relay's pidfd goes.
    pub pidfd_socket: Option<&'a Path>,
    /// How many descriptors from 3 on it gets.
    pub preserve_fds: u32,
    /// The container outlives the command: a terminal then needs a console socket.
    pub detached: bool,
}

/// A created container, whose creator still lives.
#[derive(Debug)]
pub struct Created {
    /// Its folder, locked.
    pub folder: Folder,
    /// What the host remembers.
    pub record: Record,
    /// Its relay, which has not been told to live on alone.
    pub relay: Relay,
    /// The VM that it is in.
    pub vm: Vm,
    /// The container has a terminal.
    pub terminal: bool,
}

/// Creates a container up to "created".
///
/// # Errors
/// What failed; nothing of the container is left then.
pub fn create(request: &Request<'_>) -> anyhow::Result<Created> {
    let bundle = Bundle::load(request.bundle, request.config)?;
    let root = Root::new(request.globals.root.as_deref());
    let peers = Peers::find(&root, &bundle.spec)?;
    log::about(request.id.as_str(), peers.sandbox.as_ref().map(ContainerId::as_str));
    // Before the namespaces are looked at, which a sandbox that has ended has no more.
    let sandbox = peers.sandbox.clone().map(|id| running_sandbox(&root, id)).transpose()?;
    let record = record(&bundle, request.id);
    let config = Config::load()?;
    let from_caller = FromCaller::take(request.preserve_fds, &bundle.spec)?;
    let allowed = Allowed { annotations: &config.allowed_annotations, host_sockets: &config.host_sockets };
    let notify = from_caller.notify.is_some();
    let lowered = lower::lower(&bundle, request.id, record.share(), &peers, allowed, notify)
        .context(crate::oci::bundle::CONFIG)?;
    let plan = &lowered.plan;
    terminal::check(plan.guest.process.terminal.is_some(), request.console_socket, request.detached)?;
    let place = match sandbox {
        Some(sandbox) => {
            lower::vm::refuse(&bundle).context(crate::oci::bundle::CONFIG)?;
            Place::Sandbox(sandbox)
        }
        None => {
            let (config, fixed) =
                lower::vm::apply(&bundle, config, plan.demand.memory).context(crate::oci::bundle::CONFIG)?;
            Place::Own(Launch::prepare(&config)?, default_size(&config, fixed, plan))
        }
    };
    plan.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));

    let interrupts = signals::block_all().context("cannot block signals")?;
    let mut draft = Draft::begin(request, &bundle, root.create(request.id)?, record);
    match draft.build(lowered, &from_caller, place, interrupts) {
        Ok(built) => Draft::finish(draft, built),
        Err(error) => Err(draft.explain(error)),
    }
}

/// What a VM's size follows from, besides limits.
fn default_size(config: &Config, fixed: Fixed, plan: &ContainerPlan) -> VmSize {
    let allowed = plan.cgroup.cpus().unwrap_or(u8::MAX).min(sizing::host_cpus());
    VmSize {
        default_mib: config.memory_mib,
        fixed_mib: fixed.mib,
        default_vcpus: allowed,
        most_vcpus: fixed.vcpus.or(config.max_vcpus).unwrap_or_else(sizing::host_cpus),
        fixed_vcpus: fixed.vcpus,
        pod: plan.pod,
        ..VmSize::default()
    }
}

fn record(bundle: &Bundle, id: &ContainerId) -> Record {
    Record {
        id: id.to_string(),
        bundle: bundle.path.clone(),
        rootfs: bundle.rootfs.clone(),
        created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
        annotations: bundle.spec.annotations().clone().unwrap_or_default(),
        owner: nix::unistd::getuid().as_raw(),
        boot_id: state::boot_id().to_owned(),
        complete: false,
        started: false,
        paused: false,
        relay: None,
        vmm: None,
        files: None,
        cgroup: None,
        hooks: Hooks::default(),
        demand: Demand::default(),
        vm_size: None,
        sandbox: None,
        volumes: Vec::new(),
        disks: Vec::new(),
        namespaces: Vec::new(),
        network: None,
    }
}

/// In which VM a container is created.
pub(super) enum Place {
    /// One that is to be launched, and what its size follows from.
    Own(Launch, VmSize),
    /// That of a sandbox.
    Sandbox(RunningSandbox),
}

/// A sandbox that can be joined.
pub(super) struct RunningSandbox {
    /// Its ID.
    pub(super) id: ContainerId,
    /// The VMM's process.
    pub(super) vmm: Pidfd,
}

fn running_sandbox(root: &Root, id: ContainerId) -> anyhow::Result<RunningSandbox> {
    let record = root.peek(&id)?.read()?.filter(|record| record.complete);
    let running = record.filter(|record| record.relay.as_ref().is_some_and(ProcessRef::is_alive));
    let vmm = running.and_then(|record| record.vmm).and_then(|vmm| vmm.open());
    let vmm = vmm.with_context(|| {
        format!("sandbox {:?} is not running (any more), so no container can join it", id.as_str())
    })?;
    Ok(RunningSandbox { id, vmm })
}
