//! A container on its way to "created": each step remembers what it makes before it makes it, and everything is undone
//! where one fails.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use nix::sys::signalfd::SignalFd;
use stockade_protocol::agent::{ProcessId, Purpose, Ready};
use stockade_protocol::container::{Container, Namespace};

use super::create::{Created, Place, Request};
use super::disks;
use super::network;
use super::passed::Passed;
use super::{remove, resize};
use crate::agent::{ClientError, Connection, ProcessConnections, call};
use crate::bundle::{Bundle, CONFIG};
use crate::cli::CgroupDriver;
use crate::hooks;
use crate::host::cgroup::Cgroup;
use crate::host::scope::Placeholder;
use crate::host_sockets::HostSockets;
use crate::log;
use crate::lower::disks::Disk;
use crate::lower::{Lowered, NetworkNamespace, Tree, UserNamespace, id_map};
use crate::machine::{self, Machine, MachineError, Shared, Vm};
use crate::metrics::{Metrics, Subject};
use crate::network::{Pending, user_mode};
use crate::pid_file;
use crate::port_forward::PortForward;
use crate::relay::{CreateHooks, Own, Plan, Relay, Surroundings};
use crate::role::Role;
use crate::sandbox;
use crate::shares;
use crate::sizing::{self, VmSize};
use crate::state::{Folder, METRICS_SOCKET, Record};
use crate::sys::process::ProcessRef;
use crate::sys::user_namespace;
use crate::terminal::{self, Pty};
use crate::tsc;

/// What a step says that comes before the one which makes what it needs.
const NOT_MADE: &str = "a step of the creation was left out";

/// A container that is being created, and is undone when this is dropped.
pub(super) struct Creation<'a> {
    request: &'a Request<'a>,
    bundle: &'a Bundle,
    folder: Option<Folder>,
    record: Record,
    relay: Option<Relay>,
    vm: Option<Vm>,
    passed: Passed,
    network: Option<Pending>,
    /// It has failed because its sandbox's guest does not answer.
    is_mute: bool,
}

impl<'a> Creation<'a> {
    /// Nothing but a folder and what there will be to remember.
    pub(super) fn new(
        request: &'a Request<'a>,
        bundle: &'a Bundle,
        folder: Folder,
        record: Record,
        passed: Passed,
    ) -> Self {
        Self {
            request,
            bundle,
            folder: Some(folder),
            record,
            relay: None,
            vm: None,
            passed,
            network: None,
            is_mute: false,
        }
    }

    /// Takes all the steps.
    ///
    /// # Errors
    /// What failed.
    pub(super) fn build(
        &mut self,
        mut lowered: Lowered,
        place: Place,
        interrupts: SignalFd,
    ) -> anyhow::Result<()> {
        let placeholder = self.find_place(&lowered, place, interrupts)?;
        let pty = match (self.request.console_socket, lowered.container.process.terminal) {
            (Some(_), Some(size)) => Some(Pty::open(size).context("cannot open a pseudo-terminal")?),
            _ => None,
        };
        let sockets = std::mem::take(&mut lowered.sockets);
        self.start_relay(&lowered, sockets, pty.as_ref())?;
        // From here on the relay keeps the cgroup.
        drop(placeholder);
        self.run_hooks(&mut lowered)?;
        // The VM boots meanwhile.
        self.connect_network(&lowered)?;
        if let Some(profile) = &lowered.seccomp {
            lowered.container.seccomp.push(profile.compile().context(CONFIG)?);
        }
        self.share(&lowered.trees, lowered.volumes.as_deref())?;
        self.build_in_guest(lowered.container, lowered.disks)?;
        if let (Some(socket), Some(pty)) = (self.request.console_socket, &pty) {
            terminal::send_to(socket, "--console-socket", "/dev/ptmx", pty.master.as_fd())?;
        }
        Ok(())
    }

    /// What has failed, in the light of what has become of the sandbox meanwhile: a member depends on it at every step.
    pub(super) fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        self.is_mute = error.chain().any(|cause| {
            let failure = cause.downcast_ref().and_then(|failure| match failure {
                ClientError::Machine(failure) => Some(failure),
                _ => None,
            });
            matches!(failure.or_else(|| cause.downcast_ref()), Some(MachineError::Silent { .. }))
        });
        let (Some(sandbox), Some(folder)) = (&self.record.sandbox, &self.folder) else { return error };
        let processes = folder.neighbour(sandbox).map(|record| [record.relay, record.vmm]);
        let lives = processes.is_some_and(|all| all.iter().flatten().all(ProcessRef::is_alive));
        if lives { error } else { error.context(format!("sandbox {sandbox:?} ended meanwhile")) }
    }

    /// The cgroup, and the VM: its own begins to boot. What is returned keeps a systemd scope until the relay does.
    fn find_place(
        &mut self,
        lowered: &Lowered,
        place: Place,
        interrupts: SignalFd,
    ) -> anyhow::Result<Option<Placeholder>> {
        let folder = self.folder.as_ref().context(NOT_MADE)?;
        let record = &mut self.record;
        let cgroup = plan_cgroup(self.request, lowered)?;
        record.cgroup.clone_from(&cgroup);
        record.demand = lowered.demand;
        if let Place::Sandbox(sandbox) = &place {
            record.sandbox = Some(sandbox.id.to_string());
        }
        record.volumes.clone_from(&lowered.written);
        folder.write(record)?;
        if let Some(process) = self.bundle.spec.process() {
            folder.write_process(process)?;
        }
        let cgroup = cgroup.as_ref();
        let mut placeholder = None;
        self.vm = Some(match place {
            Place::Own(launch, size) => {
                let size = vm_size(lowered, size, cgroup)?;
                let launch = launch.memory_mib(size.mib, sizing::most_mib()).vcpus(size.most_vcpus);
                if let Some(cgroup) = cgroup {
                    let mut values = lowered.cgroup.values.clone();
                    values.push(("memory.max", sizing::host_limit_bytes(size.mib).to_string()));
                    placeholder = cgroup.make(&values)?;
                }
                record.vm_size = Some(size);
                let procs = cgroup.map(Cgroup::open_procs).transpose()?;
                let mut machine = launch.start(self.request.id, folder.as_fd(), procs, |vmm| {
                    record.vmm = vmm.reference();
                    folder.write(record)
                })?;
                machine.watch_with(folder.as_fd(), interrupts).context("cannot watch the VM")?;
                Vm::Own(machine)
            }
            Place::Sandbox(sandbox) => {
                if let Some(cgroup) = cgroup {
                    placeholder = cgroup.make(&lowered.cgroup.values)?;
                }
                folder.join(&sandbox.id).context("cannot find the sandbox's VM again")?;
                resize::make_room(folder, record)?;
                Vm::Shared(Shared::new(sandbox.vmm, folder.as_fd(), interrupts)?)
            }
        });
        Ok(placeholder)
    }

    fn start_relay(
        &mut self,
        lowered: &Lowered,
        sockets: Vec<OwnedFd>,
        pty: Option<&Pty>,
    ) -> anyhow::Result<()> {
        let folder = self.folder.as_ref().context(NOT_MADE)?;
        let lease = self.vm.as_ref().context(NOT_MADE)?.lease();
        let record = &mut self.record;
        let console_log = lease.map(|_| folder.create_console_log()).transpose()?;
        let cgroup = record.cgroup.as_ref().map(Cgroup::open).transpose()?;
        let container = &lowered.container;
        let namespaces = &container.namespaces;
        let user = lowered.user.as_ref().map(open_user_namespace).transpose()?;
        let port_forward = match &lowered.network {
            NetworkNamespace::Path(path)
                if matches!(Role::of(self.bundle.spec.annotations().as_ref()), Ok(Role::Sandbox)) =>
            {
                let prepared = PortForward::prepare(path, folder.as_fd());
                prepared.inspect_err(|error| tracing::warn!("{error:#}")).ok()
            }
            _ => None,
        };
        let metrics = Subject::of(record).filter(|_| lease.is_some());
        let metrics = metrics.map(|subject| Metrics::prepare(subject, folder.as_fd())).transpose();
        let metrics = metrics.with_context(|| format!("cannot listen on {METRICS_SOCKET}"))?;
        let host_sockets = (!sockets.is_empty())
            .then(|| HostSockets::new(self.request.id.as_str(), folder.as_fd(), sockets))
            .transpose()
            .context("cannot open the socket to the VM's agent")?;
        let relay = self.relay.insert(Relay::start(&Plan {
            surroundings: Surroundings::Own(Own {
                rootfs: &self.bundle.rootfs,
                proc: container.mounts.iter().any(|mount| mount.destination == "/proc"),
                readonly: Some(container).filter(|container| container.rootfs.readonly),
                trees: &lowered.trees,
                hooks: lowered.hooks.has_create().then(|| CreateHooks {
                    hooks: &lowered.hooks.create_container,
                    // Its PID namespace is its own.
                    state: hooks::state_json(record, "creating", Some(1)),
                    bundle: &self.bundle.path,
                }),
                network: &lowered.network,
                cgroup_namespace: namespaces.cgroup != Namespace::Guest,
                time_namespace: namespaces.time != Namespace::Guest,
                user: user.as_ref().map(AsFd::as_fd),
                hostname: container.hostname.as_deref(),
                port_forward: port_forward.as_ref(),
                host_sockets: host_sockets.as_ref(),
                metrics: metrics.as_ref(),
                lease,
                console_log: console_log.as_ref().map(AsFd::as_fd),
            }),
            args: &container.process.args,
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
            terminal: container.process.terminal.is_some(),
            slave: pty.map(|pty| pty.slave.as_fd()),
            preserved: &self.passed.preserved,
            notify: self.passed.notify.as_ref(),
        })?);
        record.relay = relay.process.reference();
        record.namespaces = sandbox::namespaces(&self.bundle.spec, relay.process.pid, user.as_ref());
        record.hooks.clone_from(&lowered.hooks);
        folder.write(record)
    }

    /// Runs the hooks of this moment, and readies those that the agent is to run.
    fn run_hooks(&mut self, lowered: &mut Lowered) -> anyhow::Result<()> {
        let relay = self.relay.as_ref().context(NOT_MADE)?;
        if lowered.hooks.has_create() {
            relay.entered()?;
            let state = hooks::state_json(&self.record, "creating", Some(relay.process.pid));
            hooks::run(&lowered.hooks.create_runtime, &state, &self.bundle.path, None)?;
            relay.go_on()?;
        }
        let own_pid = (lowered.container.namespaces.pid == Namespace::New).then_some(1);
        lowered.container.start_hooks =
            lowered.hooks.for_agent(&hooks::state_json(&self.record, "created", own_pid));
        Ok(())
    }

    /// Redirects the interfaces of its network namespace; a member's are its sandbox's business.
    fn connect_network(&mut self, lowered: &Lowered) -> anyhow::Result<()> {
        if self.record.sandbox.is_none() {
            let folder = self.folder.as_ref().context(NOT_MADE)?;
            let relay = &self.relay.as_ref().context(NOT_MADE)?.process;
            if let Some(network) = &lowered.user_network {
                user_mode::start(network, relay)?;
            }
            self.network = network::connect(folder, &mut self.record, &lowered.network, relay.pid)?;
        }
        Ok(())
    }

    /// Gives the guest the trees that the relay has cloned; `pod` is the folder of those that are the pod's.
    fn share(&mut self, trees: &[Tree], pod: Option<&str>) -> anyhow::Result<()> {
        let relay = self.relay.as_ref().context(NOT_MADE)?;
        let vm = self.vm.as_mut().context(NOT_MADE)?;
        let folder = self.record.share();
        let clones = relay.prepared()?;
        trees.iter().zip(&clones).try_for_each(|(tree, clone)| shares::map_ids(tree, clone.as_fd()))?;
        let (volumes, trees): (Vec<_>, Vec<_>) = trees.iter().zip(clones).partition(|(tree, _)| tree.of_pod);
        let named = |trees: Vec<(&Tree, OwnedFd)>| -> Vec<_> {
            trees.into_iter().map(|(tree, clone)| (tree.name.clone(), clone)).collect()
        };
        let (volumes, trees) = (named(volumes), named(trees));
        let mut files = vm.files().map_err(|error| vm.explain(error))?;
        let shared = files.add_share(folder, trees, vm).and_then(|()| match pod {
            Some(pod) if !volumes.is_empty() => files.add_trees(pod, volumes, vm),
            _ => Ok(()),
        });
        shared.map_err(|error| vm.explain(error))?;
        if self.record.sandbox.is_none() {
            self.record.files = match files.server() {
                Some(server) => Some(server),
                None => vm.files()?.server(),
            };
        }
        Ok(())
    }

    /// Has the agent build the container, and connects the relay to its init.
    fn build_in_guest(&mut self, mut container: Container, disks: Vec<Disk>) -> anyhow::Result<()> {
        let state = self.folder.as_ref().context(NOT_MADE)?;
        let folder = state.as_fd();
        let relay = self.relay.as_ref().context(NOT_MADE)?;
        let vm = self.vm.as_mut().context(NOT_MADE)?;
        let id = self.request.id.as_str();
        if let Vm::Own(machine) = vm {
            let ready = machine.agent_ready()?;
            log_figures(machine, &ready);
        }
        let terminal = container.process.terminal.is_some();
        let extra = container.process.streams.len();
        let mut control = Connection::open(folder, Purpose::Control, vm)?;
        // Before the NICs, whose driver looks once how many CPUs there are.
        if let Some(vcpus) = self.record.vm_size.map(|size| size.vcpus).filter(|vcpus| *vcpus > 1) {
            vm.control()?.call(machine::call::AddVcpus(vcpus))?;
            control.call(call::SetCpus(vcpus.into()), vm)?;
        }
        if let Some(pending) = self.network.take() {
            let vmm = vm.control().context("cannot reach the VMM")?;
            network::hand_over(&mut self.record, pending, vmm, &mut control, vm)?;
        }
        if !disks.is_empty() {
            let mut vmm = vm.control().context("cannot reach the VMM")?;
            disks::add(disks, &mut container, &mut vmm, |slot| {
                self.record.disks.push(slot);
                state.write(&self.record)
            })?;
        }
        let asked = tsc::now();
        let warnings = control.call(call::Create(container), vm)?;
        tracing::debug!(create_tsc = asked, created_tsc = tsc::now(), "the agent has built the container");
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let init = ProcessId { container: id.to_owned(), exec: None };
        let connections = ProcessConnections::open(folder, &init, terminal, extra, vm)?;
        relay.hand_over(&connections)?;
        tracing::debug!(tsc = tsc::now(), "the container is connected");
        Ok(())
    }

    /// Tells the caller, the pid file last.
    ///
    /// # Errors
    /// What could not be told; the container is undone then.
    pub(super) fn finish(mut self, terminal: bool) -> anyhow::Result<Created> {
        let relay = self.relay.as_ref().context(NOT_MADE)?;
        if let Some(socket) = self.request.pidfd_socket {
            terminal::send_to(socket, "--pidfd-socket", "pidfd", relay.process.pidfd.as_fd())?;
        }
        self.record.complete = true;
        self.folder.as_ref().context(NOT_MADE)?.write(&self.record)?;
        if let Some(path) = self.request.pid_file {
            pid_file::write(path, relay.process.pid)?;
        }
        match (self.folder.take(), self.relay.take(), self.vm.take()) {
            (Some(folder), Some(relay), Some(vm)) => {
                Ok(Created { folder, record: self.record.clone(), relay, vm, terminal })
            }
            _ => anyhow::bail!(NOT_MADE),
        }
    }
}

impl Drop for Creation<'_> {
    fn drop(&mut self) {
        if let Some(relay) = self.relay.take() {
            relay.process.kill();
        }
        if let Some(vmm) = self.vm.take().and_then(Vm::release) {
            vmm.kill();
        }
        if let Some(folder) = self.folder.take()
            && let Err(error) = remove::release(folder, &self.record, self.is_mute)
        {
            tracing::warn!("while undoing what was begun: {error:#}");
        }
    }
}

/// The host's cgroup, not made yet.
fn plan_cgroup(request: &Request<'_>, lowered: &Lowered) -> anyhow::Result<Option<Cgroup>> {
    let path = &lowered.cgroup.path;
    Ok(match request.globals.cgroup_driver() {
        CgroupDriver::Disabled => None,
        CgroupDriver::Cgroupfs => {
            let planned = Cgroup::plan(path, &format!("stockade-{}", request.id))?;
            if path.as_os_str().is_empty() && user_namespace::is_inner() && !planned.may_be_made() {
                tracing::warn!(
                    "no cgroup of its own on the host: this user may not make {}; the container's limits hold in its VM",
                    planned.path.display()
                );
                return Ok(None);
            }
            Some(planned)
        }
        CgroupDriver::Systemd => Some(Cgroup::plan_scope(path, request.id.as_str())?),
    })
}

/// The user namespace of the relay.
fn open_user_namespace(user: &UserNamespace) -> anyhow::Result<OwnedFd> {
    let opened = match &user.path {
        Some(path) => File::open(path).map(OwnedFd::from),
        None => user_namespace::create(&id_map(&user.mappings.users), &id_map(&user.mappings.groups)),
    };
    opened
        .context("linux.uidMappings: the host cannot make such a user namespace for the container's stand-in")
}

/// The VM's size at first.
fn vm_size(lowered: &Lowered, size: VmSize, cgroup: Option<&Cgroup>) -> anyhow::Result<VmSize> {
    let vcpus = size.wanted_vcpus(lowered.demand, &[]);
    let mib = sizing::within(size.wanted_mib(lowered.demand, &[]), resize::available(cgroup))?;
    tracing::debug!(guest_mib = mib, "the VM's size");
    Ok(VmSize { mib, vcpus, ..size })
}

/// What a benchmark needs to place the guest's first instruction in the host's time.
fn log_figures(machine: &Machine, ready: &Ready) {
    if !log::is_debug() {
        return;
    }
    match machine
        .control()
        .map_err(anyhow::Error::from)
        .and_then(|mut control| Ok(control.call(machine::call::ReadFigures())?))
    {
        Ok(figures) => tracing::debug!(
            tsc = tsc::now(),
            vmm_entry_tsc = figures.entry_tsc,
            vmm_run_tsc = figures.run_tsc,
            tsc_offset = figures.tsc_offset,
            agent_entry_tsc = ready.entry_tsc,
            vmm_overhead_kib = figures.overhead_kib,
            guest_kib = figures.guest_kib,
            "the agent is ready on Linux {}",
            ready.kernel_release
        ),
        Err(error) => tracing::debug!("no figures from the VMM: {error:#}"),
    }
}
