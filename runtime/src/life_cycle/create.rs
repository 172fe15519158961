//! Creating a container: everything that can be checked is checked before anything is made.

use std::time::SystemTime;

use anyhow::Context;

use super::abandoned::remove_abandoned;
use super::creation::Draft;
use super::from_caller::FromCaller;
use super::request::{Created, Place, Request, running_sandbox};
use crate::config::Config;
use crate::log;
use crate::lower::security_labels::Selinux;
use crate::lower::vm::Fixed;
use crate::lower::{self, Allowed, ContainerPlan};
use crate::node;
use crate::oci::bundle::Bundle;
use crate::oci::container_id::ContainerId;
use crate::oci::hooks::Hooks;
use crate::state::sandbox::Peers;
use crate::state::{self, Record, Root};
use crate::sys::signals;
use crate::sys::terminal;
use crate::vm::Launch;
use crate::vm::sizing::{self, Demand, VmSize};

/// Creates a container up to "created".
///
/// # Errors
/// What failed; nothing of the container is left then.
pub fn create(request: &Request<'_>) -> anyhow::Result<Created> {
    let bundle = Bundle::load(request.bundle, request.config)?;
    let root = Root::new(request.globals.root.as_deref());
    remove_abandoned(&root, None);
    let peers = Peers::find(&root, &bundle.spec)?;
    if peers.sandbox.is_some() {
        remove_abandoned(&root, peers.sandbox.as_ref());
    }
    log::about(request.id.as_str(), peers.sandbox.as_ref().map(ContainerId::as_str));
    // This comes before the check of the namespaces, because a sandbox that has ended has none any more.
    let sandbox = peers.sandbox.clone().map(|id| running_sandbox(&root, id)).transpose()?;
    let mut record = record(&bundle, request.id);
    let config = Config::load()?;
    let from_caller = FromCaller::take(request.preserve_fds, &bundle.spec, &bundle.path)?;
    let selinux = match (&peers.sandbox, &config.selinux) {
        (Some(_), _) => Selinux::of_record(peers.selinux.as_deref()),
        (None, Some(_)) => Selinux::Own,
        (None, None) => Selinux::Absent,
    };
    let allowed = Allowed {
        annotations: &config.allowed_annotations,
        host_sockets: &config.host_sockets,
        apparmor_policies: &config.apparmor_policies,
        selinux,
        scratch: Some(&config.scratch),
    };
    let notify = from_caller.notify.is_some();
    let lowered = lower::lower(&bundle, request.id, record.share(), &peers, allowed, notify)
        .context(crate::oci::bundle::CONFIG)?;
    let plan = &lowered.plan;
    terminal::check(plan.guest.process.terminal.is_some(), request.console_socket, request.detached)?;
    let policy = config.selinux.as_ref().filter(|_| sandbox.is_none());
    let policy = policy.map(|policy| node::selinux::load(policy, plan.mount_label.as_deref())).transpose()?;
    let place = match sandbox {
        Some(sandbox) => {
            lower::vm::refuse(&bundle).context(crate::oci::bundle::CONFIG)?;
            Place::Sandbox(sandbox)
        }
        None => {
            let (config, fixed) =
                lower::vm::apply(&bundle, config, plan.demand.memory).context(crate::oci::bundle::CONFIG)?;
            let launch =
                Launch::prepare(&config)?.labelled(plan.host_label.as_ref().map(|host| &*host.label));
            Place::Own(Box::new(launch), default_size(&config, fixed, plan))
        }
    };
    let of_descriptors = from_caller.preserved.warnings();
    plan.warnings.iter().chain(&of_descriptors).for_each(|warning| tracing::warn!("{warning}"));

    record.selinux = match &policy {
        Some(policy) => Some(policy.shares.clone().unwrap_or_default()),
        None => peers.selinux,
    };
    let interrupts = signals::block_all().context("cannot block signals")?;
    let mut draft = Draft::begin(request, &bundle, root.create(request.id)?, record);
    match draft.build(lowered, &from_caller, place, policy, interrupts) {
        Ok(built) => Draft::finish(draft, built),
        Err(error) => Err(draft.explain(error)),
    }
}

/// The VM's size without limits.
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
        template: None,
        selinux: None,
    }
}
