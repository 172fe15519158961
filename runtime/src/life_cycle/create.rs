//! Creating a container: DESIGN's flow, with everything undone where a step fails.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;
use nix::sys::signalfd::SignalFd;
use stockade_protocol::agent::{ProcessId, Purpose, Ready};
use stockade_protocol::container::Namespace;
use stockade_protocol::vmm::Stage;

use crate::agent::{Connection, ProcessConnections};
use crate::bundle::Bundle;
use crate::cli::{CgroupDriver, Globals};
use crate::config::Config;
use crate::container_id::ContainerId;
use crate::hooks::{self, Hooks};
use crate::host::cgroup::{self, Cgroup};
use crate::log;
use crate::lower::{self, Lowered};
use crate::machine::{Launch, Machine, Shared, Vm};
use crate::pid_file;
use crate::relay::{CreateHooks, Own, Plan, Relay, Surroundings};
use crate::sandbox::{self, Peers};
use crate::shares;
use crate::sizing;
use crate::state::{self, Folder, Record, Root};
use crate::sys::process::Pidfd;
use crate::sys::signals;
use crate::terminal::{self, Pty};
use crate::tsc;

use super::passed::Passed;
use super::remove;

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
    let mut lowered = lower::lower(&bundle, request.id, &peers).context(crate::bundle::CONFIG)?;
    let terminal = lowered.container.process.terminal.is_some();
    terminal::check(terminal, request.console_socket, request.detached)?;
    let passed = Passed::take(request, &bundle.spec, &mut lowered)?;
    let place = match peers.sandbox {
        Some(sandbox) => Place::Sandbox(running_sandbox(&root, sandbox)?),
        None => {
            let config = Config::load()?;
            Place::Own(Launch::prepare(&config)?, config)
        }
    };
    lowered.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));

    let interrupts = signals::block_all().context("cannot block signals")?;
    let folder = root.create(request.id)?;
    let mut creation = Creation::new(folder, record(&bundle, request.id), passed);
    creation.build(request, &bundle, lowered, place, interrupts)?;
    creation.finish(request, terminal)
}

fn record(bundle: &Bundle, id: &ContainerId) -> Record {
    Record {
        id: id.to_string(),
        bundle: bundle.path.clone(),
        rootfs: bundle.rootfs.clone(),
        created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
        annotations: bundle.spec.annotations().clone().unwrap_or_default(),
        owner: nix::unistd::getuid().as_raw(),
        boot_id: state::boot_id(),
        complete: false,
        relay: None,
        vmm: None,
        cgroup: None,
        hooks: Hooks::default(),
        guest_mib: None,
        sandbox: None,
        namespaces: Vec::new(),
    }
}

/// In which VM a container is created.
enum Place {
    /// One that is to be launched.
    Own(Launch, Config),
    /// That of a sandbox.
    Sandbox(RunningSandbox),
}

struct RunningSandbox {
    id: ContainerId,
    vmm: Pidfd,
}

fn running_sandbox(root: &Root, id: ContainerId) -> anyhow::Result<RunningSandbox> {
    let record = root.peek(&id)?.read()?.filter(|record| record.complete);
    let vmm = record.and_then(|record| record.vmm).and_then(|vmm| vmm.open());
    let vmm = vmm.with_context(|| format!("sandbox {id:?} has no VM (any more)"))?;
    Ok(RunningSandbox { id, vmm })
}

/// A container that is being created, and is undone when this is dropped.
struct Creation {
    folder: Option<Folder>,
    record: Record,
    relay: Option<Relay>,
    vm: Option<Vm>,
    passed: Passed,
}

impl Creation {
    fn new(folder: Folder, record: Record, passed: Passed) -> Self {
        Self { folder: Some(folder), record, relay: None, vm: None, passed }
    }

    fn build(
        &mut self,
        request: &Request<'_>,
        bundle: &Bundle,
        mut lowered: Lowered,
        place: Place,
        interrupts: SignalFd,
    ) -> anyhow::Result<()> {
        let folder = self.folder.as_ref().context("the container's folder is gone")?;
        let record = &mut self.record;

        let cgroup = plan_cgroup(request, &lowered)?;
        record.cgroup.clone_from(&cgroup);
        if let Place::Sandbox(sandbox) = &place {
            record.sandbox = Some(sandbox.id.to_string());
        }
        folder.write(record)?;
        if let Some(process) = bundle.spec.process() {
            folder.write_process(process)?;
        }
        let cgroup = cgroup.as_ref();
        let mut placeholder = None;
        let vm = self.vm.insert(match place {
            Place::Own(launch, config) => {
                let launch = launch.memory_mib(guest_mib(&lowered, &config, cgroup)?);
                if let Some(cgroup) = cgroup {
                    let mut values = lowered.cgroup.values.clone();
                    values.push(("memory.max", sizing::host_limit_bytes(launch.guest_mib()).to_string()));
                    placeholder = cgroup.make(&values)?;
                }
                record.guest_mib = Some(launch.guest_mib());
                let procs = cgroup.map(Cgroup::open_procs).transpose()?;
                let mut machine = launch.start(request.id, folder.as_fd(), procs, |vmm| {
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
                Vm::Shared(Shared::new(sandbox.vmm, folder.as_fd(), interrupts)?)
            }
        });

        let pty = match (request.console_socket, lowered.container.process.terminal) {
            (Some(_), Some(size)) => Some(Pty::open(size).context("cannot open a pseudo-terminal")?),
            _ => None,
        };
        let terminal = lowered.container.process.terminal.is_some();
        let console_log = vm.lease().map(|_| folder.create_console_log()).transpose()?;
        let cgroup_folder = cgroup.map(Cgroup::open).transpose()?;
        let relay = self.relay.insert(Relay::start(&Plan {
            surroundings: Surroundings::Own(Own {
                rootfs: &bundle.rootfs,
                proc: lowered.container.mounts.iter().any(|mount| mount.destination == "/proc"),
                trees: &lowered.trees,
                hooks: lowered.hooks.has_create().then(|| CreateHooks {
                    hooks: &lowered.hooks.create_container,
                    // Its PID namespace is its own.
                    state: hooks::state_json(record, "creating", Some(1)),
                    bundle: &bundle.path,
                }),
                network: &lowered.network,
                hostname: lowered.container.hostname.as_deref(),
                lease: vm.lease(),
                console_log: console_log.as_ref().map(AsFd::as_fd),
            }),
            args: &lowered.container.process.args,
            cgroup: cgroup_folder.as_ref().map(AsFd::as_fd),
            terminal,
            slave: pty.as_ref().map(|pty| pty.slave.as_fd()),
            preserved: &self.passed.preserved,
            notify: self.passed.notify.as_ref(),
        })?);
        record.relay = relay.process.reference();
        record.namespaces = sandbox::namespaces(&bundle.spec, relay.process.pid);
        record.hooks.clone_from(&lowered.hooks);
        folder.write(record)?;
        // From here on the relay keeps the cgroup.
        drop(placeholder);
        if lowered.hooks.has_create() {
            relay.entered()?;
            let state = hooks::state_json(record, "creating", Some(relay.process.pid));
            hooks::run(&lowered.hooks.create_runtime, &state, &bundle.path, None)?;
            relay.go_on()?;
        }
        let own_pid = (lowered.container.namespaces.pid == Namespace::New).then_some(1);
        lowered.container.start_hooks =
            lowered.hooks.for_agent(&hooks::state_json(record, "created", own_pid));

        // The VM boots meanwhile.
        if let Some(profile) = &lowered.seccomp {
            lowered.container.seccomp.push(profile.compile().context(crate::bundle::CONFIG)?);
        }
        let names = lowered.trees.iter().map(|tree| tree.name.clone());
        let trees: Vec<_> = names.zip(relay.prepared()?).collect();
        vm.reach(Stage::Isolated)?;
        shares::attach(vm.vmm(), request.id.as_str(), &trees)?;
        drop(trees);
        vm.reach(Stage::Running)?;
        vm.control()?.add_share(request.id.as_str())?;

        if let Vm::Own(machine) = vm {
            let ready = machine.agent_ready()?;
            log_figures(machine, &ready);
        }
        let extra = lowered.container.process.streams.len();
        let readonly = lowered.container.rootfs.readonly;
        let mut control = Connection::open(folder.as_fd(), Purpose::Control, vm)?;
        for warning in control.create(lowered.container, vm)? {
            tracing::warn!("{warning}");
        }
        let init = ProcessId { container: request.id.to_string(), exec: None };
        let connections = ProcessConnections::open(folder.as_fd(), &init, terminal, extra, vm)?;
        relay.hand_over(&connections)?;
        tracing::debug!(tsc = tsc::now(), "the container is built");
        if readonly {
            shares::seal_rootfs(vm.vmm(), request.id.as_str())?;
        }
        if let (Some(socket), Some(pty)) = (request.console_socket, &pty) {
            terminal::send_to(socket, "--console-socket", "/dev/ptmx", pty.master.as_fd())?;
        }
        Ok(())
    }

    /// Tells the caller, the pid file last.
    fn finish(mut self, request: &Request<'_>, terminal: bool) -> anyhow::Result<Created> {
        let relay = self.relay.as_ref().context("the relay is gone")?;
        if let Some(socket) = request.pidfd_socket {
            terminal::send_to(socket, "--pidfd-socket", "pidfd", relay.process.pidfd.as_fd())?;
        }
        self.record.complete = true;
        self.folder.as_ref().context("the container's folder is gone")?.write(&self.record)?;
        if let Some(path) = request.pid_file {
            pid_file::write(path, relay.process.pid)?;
        }
        match (self.folder.take(), self.relay.take(), self.vm.take()) {
            (Some(folder), Some(relay), Some(vm)) => {
                Ok(Created { folder, record: self.record.clone(), relay, vm, terminal })
            }
            _ => anyhow::bail!("the container was not built completely"),
        }
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        if let Some(relay) = self.relay.take() {
            relay.process.kill();
        }
        if let Some(vmm) = self.vm.take().and_then(Vm::release) {
            vmm.kill();
        }
        if let Some(folder) = self.folder.take()
            && let Err(error) = remove::release(folder, &self.record)
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
        CgroupDriver::Cgroupfs => Some(Cgroup::plan(path, &format!("stockade-{}", request.id))?),
        CgroupDriver::Systemd => Some(Cgroup::plan_scope(path, request.id.as_str())?),
    })
}

/// The VM's size.
fn guest_mib(lowered: &Lowered, config: &Config, cgroup: Option<&Cgroup>) -> anyhow::Result<u32> {
    let limit = cgroup.and_then(|cgroup| cgroup::nearest_memory_limit(&cgroup.path));
    let available = [limit, sizing::host_ram()].into_iter().flatten().min();
    let guest_mib = sizing::guest_mib(lowered.memory_limit, config.memory_mib, available)?;
    tracing::debug!(guest_mib, "the VM's size");
    Ok(guest_mib)
}

/// What a benchmark needs to place the guest's first instruction in the host's time.
fn log_figures(machine: &Machine, ready: &Ready) {
    if !log::is_debug() {
        return;
    }
    match machine.control().map_err(anyhow::Error::from).and_then(|mut control| Ok(control.figures()?)) {
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
