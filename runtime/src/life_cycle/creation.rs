//! A container on its way to "created". Each step is a type that owns what it has made, and that can be had only by the step
//! before it; what is dropped on the way is undone.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use nix::sys::signalfd::SignalFd;
use scopeguard::{ScopeGuard, guard};
use stockade_protocol::agent::{ProcessId, Purpose, VERSION};
use stockade_protocol::container::{Container, Namespace};
use stockade_protocol::settings::SelinuxPolicy;

use super::from_caller::FromCaller;
use super::request::{Created, Place, Request};
use super::{disks, figures, network, remove, resize, services, settings};
use crate::cgroup::{Cgroup, Placeholder};
use crate::lower::disks::Disk;
use crate::lower::plan::{Late, Slots};
use crate::lower::seccomp::Profile;
use crate::lower::security_labels::Labels;
use crate::lower::{ContainerPlan, Lowered, UserNamespace};
use crate::network::{Pending, user_mode};
use crate::node::Node;
use crate::oci::bundle::{Bundle, CONFIG};
use crate::oci::hooks;
use crate::relay::service::Served;
use crate::relay::{CreateHooks, Namespaces, Own, Plan, Relay, held_streams};
use crate::state::role::Role;
use crate::state::{Directory, Record, pid_file, sandbox};
use crate::sys::process::ProcessRef;
use crate::sys::terminal::{self, Pty};
use crate::sys::{selinux, tsc, user_namespace};
use crate::vm::agent::{ClientError, Connection, ProcessConnections, Watched, call, warn};
use crate::vm::sizing;
use crate::vm::template::{self, Choice};
use crate::vm::{self, MachineError, Placement, Shared, Tree, Vm, shares};

/// A value that is undone when it is dropped, unless it is taken out.
type Undone<T> = ScopeGuard<T, fn(T)>;

/// A container that is being created: its directory and record. Each step writes into the record what it is about to
/// make.
pub(super) struct Draft<'a> {
    request: &'a Request<'a>,
    bundle: &'a Bundle,
    directory: Directory,
    record: Record,
    /// Whether the creation has failed because the sandbox's guest does not answer.
    is_mute: bool,
}

impl<'a> Draft<'a> {
    /// Makes the directory and the record.
    pub(super) fn begin(
        request: &'a Request<'a>,
        bundle: &'a Bundle,
        directory: Directory,
        record: Record,
    ) -> Undone<Self> {
        guard(Self { request, bundle, directory, record, is_mute: false }, Self::undo as fn(Self))
    }

    fn undo(self) {
        if let Err(error) = remove::release(self.directory, &self.record, self.is_mute) {
            tracing::warn!("cannot undo all of a failed create: {error:#}");
        }
    }

    /// Takes all the steps.
    ///
    /// # Errors
    /// What failed. The relay and the VM are gone then.
    pub(super) fn build(
        &mut self,
        lowered: Lowered,
        from_caller: &FromCaller,
        place: Place,
        policy: Option<SelinuxPolicy>,
        interrupts: SignalFd,
    ) -> anyhow::Result<Built> {
        let Lowered { plan, disks, sockets } = lowered;
        let size = plan.guest.process.terminal;
        let terminal = size.map(|size| terminal::initial_size(size, self.request.console_socket));
        let placed = self.find_place(&plan, place, interrupts)?;
        let pty = match (self.request.console_socket, terminal) {
            (Some(_), Some(size)) => Some(Pty::open(size).context("cannot open a pseudo-terminal")?),
            _ => None,
        };
        let mut attended = placed.start_relay(self, &plan, from_caller, sockets, pty.as_ref())?;
        let start_hooks = attended.run_hooks(self, &plan)?;
        // The VM boots meanwhile.
        let network = attended.connect_network(self, &plan)?;
        let seccomp = plan.seccomp.iter().map(Profile::compile).collect::<Result<_, _>>().context(CONFIG)?;
        attended.share(self, &plan)?;
        attended.build_in_guest(self, network, disks, policy, plan.labels.as_ref(), |slots| {
            let streams = from_caller.preserved.kinds();
            let env = &from_caller.preserved.env;
            plan.container(Late { terminal, streams, env, seccomp, start_hooks, slots })
        })?;
        if let (Some(socket), Some(pty)) = (self.request.console_socket, &pty) {
            terminal::send_to(socket, "--console-socket", "/dev/ptmx", pty.master.as_fd())?;
        }
        let Attended { vm, relay, .. } = attended;
        Ok(Built { relay, vm, has_terminal: terminal.is_some() })
    }

    /// Explains a failure: every step of a member depends on its sandbox, which may have ended meanwhile.
    pub(super) fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        self.is_mute = error.chain().any(|cause| {
            let failure = cause.downcast_ref().and_then(|failure| match failure {
                ClientError::Machine(failure) => Some(failure),
                _ => None,
            });
            matches!(failure.or_else(|| cause.downcast_ref()), Some(MachineError::Silent { .. }))
        });
        let Some(sandbox) = &self.record.sandbox else { return error };
        let processes = self.directory.neighbour(sandbox).map(|record| [record.relay, record.vmm]);
        let lives = processes.is_some_and(|all| all.iter().flatten().all(ProcessRef::is_alive));
        if lives { error } else { error.context(format!("sandbox {sandbox:?} ended meanwhile")) }
    }

    fn remember(&self) -> anyhow::Result<()> {
        self.directory.write(&self.record)
    }

    /// Makes the cgroup, and starts the container's own VM or finds its sandbox's.
    fn find_place(
        &mut self,
        plan: &ContainerPlan,
        place: Place,
        interrupts: SignalFd,
    ) -> anyhow::Result<Placed> {
        let Self { directory, record, .. } = self;
        let cgroup = self.request.plan_cgroup(plan)?;
        record.cgroup.clone_from(&cgroup);
        record.demand = plan.demand;
        if let Place::Sandbox(sandbox) = &place {
            record.sandbox = Some(sandbox.id.to_string());
        }
        record.volumes.clone_from(&plan.written);
        directory.write(record)?;
        if let Some(process) = self.bundle.spec.process() {
            directory.write_process(process)?;
        }
        let cgroup = cgroup.as_ref();
        let mut scope = None;
        let vm = match place {
            Place::Own(launch, size) => {
                let size = resize::first(plan.demand, size, cgroup)?;
                let Choice { launch, size, wanted } =
                    template::choose((*launch).sized(&size), size, plan.demand);
                if let Some(cgroup) = cgroup {
                    let mut values = plan.cgroup.values.clone();
                    values.push(("memory.max", sizing::host_limit_bytes(size.mib).to_string()));
                    scope = cgroup.make(&values)?;
                }
                record.vm_size = Some(size);
                record.template = wanted;
                let placement = cgroup.map(Placement::within).transpose()?.unwrap_or_default();
                let mut machine = launch.start(self.request.id, directory.as_fd(), placement, |vmm| {
                    record.vmm = vmm.reference();
                    directory.write(record)
                })?;
                machine.watch_with(directory.as_fd(), interrupts).context("cannot watch the VM")?;
                Vm::Own(machine)
            }
            Place::Sandbox(sandbox) => {
                if let Some(cgroup) = cgroup {
                    scope = cgroup.make(&plan.cgroup.values)?;
                }
                directory.join(&sandbox.id).context("cannot find the sandbox's VM again")?;
                resize::make_room(directory, record)?;
                Vm::Shared(Shared::new(sandbox.vmm, directory.as_fd(), interrupts)?)
            }
        };
        Ok(Placed { vm: guard(vm, kill_vm as fn(Vm)), _scope: scope })
    }

    /// Tells the caller that the container is created; the pid file is written last.
    ///
    /// # Errors
    /// What could not be told; the container is undone then.
    pub(super) fn finish(mut draft: Undone<Self>, built: Built) -> anyhow::Result<Created> {
        let Built { vm, relay, has_terminal } = built;
        if let Some(socket) = draft.request.pidfd_socket {
            terminal::send_to(socket, "--pidfd-socket", "pidfd", relay.process.pidfd.as_fd())?;
        }
        draft.record.complete = true;
        draft.remember()?;
        if let Some(path) = draft.request.pid_file {
            pid_file::write(path, relay.process.pid)?;
        }
        let Self { directory, record, .. } = ScopeGuard::into_inner(draft);
        let (relay, vm) = (ScopeGuard::into_inner(relay), ScopeGuard::into_inner(vm));
        Ok(Created { directory, record, relay, vm, terminal: has_terminal })
    }
}

fn kill_vm(vm: Vm) {
    if let Some(vmm) = vm.release() {
        vmm.kill();
    }
}

fn kill_relay(relay: Relay) {
    relay.process.kill();
}

/// A container with a cgroup and a VM.
struct Placed {
    vm: Undone<Vm>,
    /// Keeps a scope of systemd alive until a relay is in it.
    _scope: Option<Placeholder>,
}

impl Placed {
    fn start_relay(
        self,
        draft: &mut Draft<'_>,
        plan: &ContainerPlan,
        from_caller: &FromCaller,
        sockets: Vec<OwnedFd>,
        pty: Option<&Pty>,
    ) -> anyhow::Result<Attended> {
        let lease = self.vm.lease();
        let Draft { bundle, directory, record, .. } = draft;
        let console_log = lease.map(|_| directory.create_console_log()).transpose()?;
        let cgroup = record.cgroup.as_ref().map(Cgroup::open).transpose()?;
        let namespaces = &plan.guest.namespaces;
        let user = plan.user.as_ref().map(open_user_namespace).transpose()?;
        let is_sandbox = matches!(Role::of(bundle.spec.annotations().as_ref()), Ok(Role::Sandbox));
        let pod_network = plan.network.path().filter(|_| is_sandbox);
        from_caller.preserved.check(directory.as_fd())?;
        let adopted = held_streams::listen(directory.as_fd())
            .context("cannot make the socket for streams that outlive their processes")?;
        let heir = record.sandbox.as_deref().and_then(|sandbox| directory.open_neighbour(sandbox));
        let heir = heir.and_then(|sandbox| held_streams::connect(sandbox.as_fd()));
        let services = services::prepare(&Served {
            record,
            directory: directory.as_fd(),
            has_lease: lease.is_some(),
            pod_network,
            sockets: &sockets,
        })?;
        let process = &plan.guest.process;
        let relay = Relay::start(&Plan {
            namespaces: Namespaces::Own(Own {
                rootfs: &bundle.rootfs,
                container: &plan.guest,
                follows: self.vm.has_file_server(),
                trees: &plan.trees,
                hooks: plan.hooks.has_create().then(|| CreateHooks {
                    hooks: &plan.hooks.create_container,
                    // The hook sees another PID than the host: the container has its own PID namespace.
                    state: record.state_json("creating", Some(1)),
                    bundle: &bundle.path,
                }),
                network: &plan.network,
                cgroup_namespace: namespaces.cgroup != Namespace::Guest,
                time_namespace: namespaces.time != Namespace::Guest,
                user: user.as_ref().map(AsFd::as_fd),
                hostname: plan.guest.hostname.as_deref(),
                services: &services,
                lease,
                console_log: console_log.as_ref().map(AsFd::as_fd),
                adopted: adopted.as_fd(),
            }),
            args: &process.args,
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
            terminal: process.terminal.is_some(),
            slave: pty.map(|pty| pty.slave.as_fd()),
            preserved: &from_caller.preserved,
            notify: from_caller.notify.as_ref(),
            label: plan.host_label.as_ref().filter(|_| selinux::is_enabled()).map(|host| &*host.label),
            heir: heir.as_ref().map(AsFd::as_fd),
        })?;
        let relay = guard(relay, kill_relay as fn(Relay));
        // The relay has its own.
        drop(services);
        record.relay = relay.process.reference();
        record.namespaces = sandbox::namespaces(&bundle.spec, relay.process.pid, user.as_ref());
        record.hooks.clone_from(&plan.hooks);
        directory.write(record)?;
        let read_node = || Node::read(record.share(), plan.guest.wants_core_dumps());
        let node = record.sandbox.is_none().then(read_node).unwrap_or_default();
        node.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(Attended { vm: self.vm, relay, node })
    }
}

/// A container with a VM and a relay.
struct Attended {
    vm: Undone<Vm>,
    relay: Undone<Relay>,
    /// The node's settings for the guest; empty for a member.
    node: Node,
}

impl Attended {
    /// Runs prestart and createRuntime hooks; returns the hooks that the agent runs.
    fn run_hooks(
        &self,
        draft: &Draft<'_>,
        plan: &ContainerPlan,
    ) -> anyhow::Result<Vec<stockade_protocol::container::Hook>> {
        if plan.hooks.has_create() {
            self.relay.entered()?;
            let state = draft.record.state_json("creating", Some(self.relay.process.pid));
            hooks::run(&plan.hooks.create_runtime, &state, &draft.bundle.path, None)?;
            self.relay.go_on()?;
        }
        let own_pid = (plan.guest.namespaces.pid == Namespace::New).then_some(1);
        Ok(plan.hooks.for_agent(&draft.record.state_json("created", own_pid)))
    }

    /// Redirects the interfaces of its network namespace; those of a member belong to its sandbox.
    fn connect_network(
        &self,
        draft: &mut Draft<'_>,
        plan: &ContainerPlan,
    ) -> anyhow::Result<Option<Pending>> {
        if draft.record.sandbox.is_some() {
            return Ok(None);
        }
        let relay = &self.relay.process;
        if let Some(network) = &plan.user_network {
            user_mode::start(network, relay)?;
        }
        network::connect(&draft.directory, &mut draft.record, &plan.network, relay.pid)
    }

    /// Gives the guest the trees that the relay has cloned.
    fn share(&mut self, draft: &mut Draft<'_>, plan: &ContainerPlan) -> anyhow::Result<()> {
        let vm = &mut *self.vm;
        let directory = draft.record.share();
        let clones = self.relay.prepared()?;
        settings::check_label(&self.relay, plan.host_label.as_ref())?;
        let trees = plan.trees.iter().zip(clones);
        let trees = trees.map(|(tree, clone)| shares::map_ids(tree, clone.as_fd()).map(|()| (tree, clone)));
        let trees = trees.collect::<Result<Vec<_>, _>>()?;
        let (volumes, trees): (Vec<_>, Vec<_>) = trees.into_iter().partition(|(tree, _)| tree.of_pod);
        let named = |trees: Vec<(&Tree, OwnedFd)>| -> Vec<_> {
            trees.into_iter().map(|(tree, clone)| (tree.name.clone(), clone)).collect()
        };
        let (volumes, mut trees) = (named(volumes), named(trees));
        trees.append(&mut self.node.trees);
        let mut files = vm.files().map_err(|error| vm.explain(error))?;
        let shared = files.add_share(directory, trees, vm).and_then(|()| match &plan.volumes {
            Some(pod) if !volumes.is_empty() => files.add_trees(pod, volumes, vm),
            _ => Ok(()),
        });
        shared.map_err(|error| vm.explain(error))?;
        if draft.record.sandbox.is_none() {
            draft.record.files = match files.server() {
                Some(server) => Some(server),
                None => vm.files()?.server(),
            };
        }
        Ok(())
    }

    /// Makes the agent build the container, and connects the relay to its init.
    fn build_in_guest(
        &mut self,
        draft: &mut Draft<'_>,
        network: Option<Pending>,
        disks: Vec<Disk>,
        policy: Option<SelinuxPolicy>,
        labels: Option<&Labels>,
        container: impl FnOnce(Slots) -> Container,
    ) -> anyhow::Result<()> {
        let vm = &mut *self.vm;
        let mut is_newest = false;
        if let Vm::Own(machine) = vm {
            let ready = machine.agent_ready()?;
            is_newest = ready.version >= VERSION;
            if machine.is_clone() {
                draft.record.template = None;
            }
            figures::log_stats(machine, &ready);
        }
        let mut control = match is_newest {
            true => Connection::open_newest(draft.directory.as_fd(), vm)?,
            false => Connection::open(draft.directory.as_fd(), Purpose::Control, vm)?,
        };
        // Before all that has a label.
        if let Some(policy) = policy {
            control.call(call::LoadSelinux(policy), vm)?;
        }
        // Before the NICs, because their driver reads the number of CPUs only once.
        if let Some(vcpus) = draft.record.vm_size.map(|size| size.vcpus).filter(|vcpus| *vcpus > 1) {
            vm.control()?.call(vm::call::AddVcpus(vcpus))?;
            control.call(call::SetCpus(vcpus.into()), vm)?;
        }
        let mut settings = std::mem::take(&mut self.node.settings);
        if let Some(mut pending) = network {
            settings.sysctls.append(&mut pending.take_sysctls());
            let vmm = vm.control().context("cannot reach the VMM")?;
            network::hand_over(&mut draft.record, pending, vmm, &mut control, vm)?;
        }
        settings::hand_over(&draft.directory, is_newest.then_some(&mut control), settings, vm)?;
        let slots = match disks.is_empty() {
            true => Slots::default(),
            false => {
                let mut vmm = vm.control().context("cannot reach the VMM")?;
                disks::add(disks, &mut vmm, |slot| {
                    draft.record.disks.push(slot);
                    draft.remember()
                })?
            }
        };
        let container = container(slots);
        let init = ProcessId { container: container.id.clone(), exec: None };
        if let Some(confined) = settings::confine(&draft.directory, &init, labels, vm)? {
            control = confined;
        }
        let terminal = container.process.terminal.is_some();
        let terminal = terminal.then(|| Watched::of(draft.request.console_socket.is_some()));
        let streams = container.process.streams.clone();
        let asked = tsc::now();
        let warnings = control.call(call::Create(container), vm)?;
        tracing::debug!(create_tsc = asked, created_tsc = tsc::now(), "the agent has built the container");
        warn(warnings);
        let directory = draft.directory.as_fd();
        self.relay.hand_over(&ProcessConnections::open(directory, &init, terminal, &streams, vm)?)?;
        tracing::debug!(tsc = tsc::now(), "the container is connected");
        Ok(())
    }
}

/// A container that waits for `start`, and of which nobody has been told yet.
pub(super) struct Built {
    relay: Undone<Relay>,
    vm: Undone<Vm>,
    has_terminal: bool,
}

/// The user namespace of the relay.
fn open_user_namespace(user: &UserNamespace) -> anyhow::Result<OwnedFd> {
    let opened = match &user.path {
        Some(path) => File::open(path).map(OwnedFd::from),
        None => user_namespace::create(&user.mappings),
    };
    opened.context("linux.uidMappings: the host cannot make this user namespace for the container's relay")
}
