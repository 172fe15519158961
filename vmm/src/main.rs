//! stockade-vmm: the microVM of one sandbox.
//!
//! Started by the runtime with a fixed set of descriptors (`protocol/src/vmm.rs`); takes no arguments and reads no
//! files. Exits with 0 when the guest has ended, nobody needs it any more, or it has been saved as a template, with 1 when it failed; the reason is on the
//! status socket.

use std::{panic, process::ExitCode, sync::Arc};

use stockade_protocol::{
    renewal,
    vmm::{self, CONSOLE_EXCERPT, Stage},
};
use stockade_vmm::{
    adjustable::Parts,
    boot::{self, command_line, mp_table::Cpus},
    bus::Bus,
    console::{self, Output},
    control::{self, Ending, Services},
    devices::{
        self,
        balloon::Reports,
        fs::channel,
        mem::{Growth, OnReached},
    },
    error::Error,
    faults, file_server,
    hotplug::HotplugSlots,
    inherited, isolation,
    machine::{self, Machine},
    memory::{self, Size},
    ram::{Growing, Ram},
    seccomp::{self, Thread},
    stats::{StatsSource, host_tsc},
    status::StatusSocket,
    template::{self, Files, Refusal, Restored, Saving},
    vcpu::{self, End, Vcpu},
    virtio::{failures::Failures, slots},
};
use vm_memory::GuestAddress;

/// Number of the allocator's arenas: one for all threads. With more arenas, the allocator makes system calls that no
/// thread may make: it counts the CPUs after it has made some arenas, and reads the overcommit setting before it trims
/// one.
const ARENAS: libc::c_int = 1;

fn main() -> ExitCode {
    let entry_tsc = host_tsc();
    #[cfg(feature = "takeover")]
    stockade_takeover::open_report();
    // SAFETY: only sets a parameter of the allocator, which no other thread uses yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    // SAFETY: nothing has opened or closed a descriptor yet.
    let status = match unsafe { inherited::take_status() } {
        Ok(status) => Arc::new(status),
        Err(e) => {
            eprintln!("stockade-vmm: {e}");
            return ExitCode::FAILURE;
        }
    };
    let console = Output::default();
    report_panics(&status, &console);
    match run(entry_tsc, &status, &console) {
        Ok(None | Some(End::ReadyToSave)) => ExitCode::SUCCESS,
        Ok(Some(End::Reset)) => {
            status.ended("the guest reset its machine", console.last_lines(CONSOLE_EXCERPT));
            ExitCode::SUCCESS
        }
        Ok(Some(End::Failed(reason))) => {
            status.failed(&reason, console.last_lines(CONSOLE_EXCERPT));
            ExitCode::FAILURE
        }
        Err(e) => {
            status.failed(&e.to_string(), console.last_lines(CONSOLE_EXCERPT));
            ExitCode::FAILURE
        }
    }
}

/// Makes a panic end the process with a report of its reason.
fn report_panics(status: &Arc<StatusSocket>, console: &Output) {
    let (status, console) = (Arc::clone(status), console.clone());
    panic::set_hook(Box::new(move |panic| {
        status.failed(&format!("the VMM has a fault: {panic}"), console.last_lines(CONSOLE_EXCERPT));
    }));
}

fn run(entry_tsc: u64, status: &Arc<StatusSocket>, console: &Output) -> Result<Option<End>, Error> {
    // SAFETY: nothing but the status socket has been claimed yet, once.
    let inherited = unsafe { inherited::take() }?;
    let config = inherited.config;
    status.reached(Stage::Started);

    let machine = Machine::create(inherited.kvm)?;
    isolation::join_cgroup(inherited.cgroup_procs)?;
    let procfs = isolation::enter()?;
    let smaps = procfs.open("self/smaps")?;
    let (files_channel, channel) = channel::new().map_err(Error::Channel)?;
    let parts = file_server::Parts {
        channel,
        listener: inherited.files_listener,
        procfs,
        user_lock: inherited.user_lock,
    };
    // This is before the process has anything of the guest.
    let (files, _user_lock) = file_server::Process::start(parts)?;
    isolation::confine(config.user)?;
    status.reached(Stage::Isolated);

    let size = Size { memory_mib: config.memory_mib, most_mib: config.most_memory_mib };
    let Template { saves, uses } = Template::of(config.template, inherited.template);
    let (machine, ram, restored) = match uses {
        Some(files) => match template::restore(&machine, || reserve(&machine, size), &config, &files) {
            Ok((ram, restored)) => (machine, ram, Some(restored)),
            Err(Refusal::NoRam(error)) => return Err(error.into()),
            Err(refusal) => {
                status.template_refused(&refusal.to_string());
                let machine = machine.renew()?;
                let ram = reserve(&machine, size)?;
                machine.set_up()?;
                (machine, ram, None)
            }
        },
        None => {
            let ram = reserve(&machine, size)?;
            machine.set_up()?;
            (machine, ram, None)
        }
    };
    let memory = ram.memory.clone();
    faults::report(status, &memory).map_err(Error::Faults)?;
    let ending = Arc::new(Ending::new().map_err(Error::Thread)?);
    let growth = ram.growth.as_ref().map(Growing::device);
    let on_ready = match saves {
        None => when_grown(growth.clone(), report_agent(status)),
        Some(_) => when_grown(growth.clone(), end_to_save(&ending)),
    };
    let reports = Reports::default();
    let devices = devices::all(devices::Parts {
        files: files_channel,
        growth,
        cid: config.cid,
        agent_listener: inherited.agent_listener,
        ready: inherited.ready,
        on_ready,
        reports: reports.clone(),
        renewal: restored.is_some().then(template::renewal).transpose().map_err(Error::Device)?,
    })
    .map_err(Error::Device)?;
    let first_hotplug = devices.len();
    let slots = first_hotplug + slots::HOTPLUG;
    let failures = Failures::new().map_err(Error::Device)?;
    let (vcpus, serial, states, fresh) = match restored {
        Some(Restored { vcpus, serial, devices, fresh }) => (vcpus, Some(serial), devices, Some(fresh)),
        None => {
            let parameters = &config.kernel_parameters;
            let parameters = saves.as_ref().map_or_else(|| parameters.clone(), |_| of_template(parameters));
            let command_line =
                command_line::build(slots, config.vcpus, &parameters).map_err(boot::Error::CommandLine)?;
            let lines: Vec<u8> =
                [console::IRQ].into_iter().chain(slots::all().take(slots).map(|slot| slot.irq)).collect();
            let cpus = Cpus { listed: config.vcpus, lines: &lines };
            let entry = boot::load(&memory, &inherited.kernel, &inherited.initramfs, &command_line, cpus)?;
            (vec![machine.boot_cpu(entry, config.vcpus)?], None, Vec::new(), None)
        }
    };
    drop((inherited.kernel, inherited.initramfs));
    let mut transports = machine.attach(devices, &memory, status, &failures)?;
    // Empty if the guest boots.
    for (slot, (transport, state)) in transports.iter_mut().zip(states).enumerate() {
        transport.restore(state).map_err(|reason| Error::Restore { slot, reason })?;
    }
    let serial = machine.serial_line(console.clone(), serial)?;
    let bus = Arc::new(Bus::new(serial, transports, slots::HOTPLUG).map_err(Error::Device)?);
    status.reached(Stage::Loaded);

    let stats = StatsSource {
        entry_tsc,
        run_tsc: host_tsc(),
        tsc_offset: vcpus.first().map_or(0, Vcpu::tsc_offset),
        memory: memory.clone(),
        smaps,
    };
    let cpus = vcpu::Threads::new(config.vcpus, Arc::clone(&bus), Arc::clone(&ending));
    cpus.start(vcpus).map_err(Error::Thread)?;
    seccomp::restrict(if saves.is_some() { Thread::Saver } else { Thread::Main })?;
    status.reached(Stage::Running);

    let machine = Arc::new(machine);
    let wiring = Arc::<Machine>::clone(&machine);
    let hotplug = HotplugSlots {
        wiring,
        bus: Arc::clone(&bus),
        memory,
        failures: failures.clone(),
        first: first_hotplug,
    };
    let console = console.clone();
    let parts = Arc::new(Parts { machine, ram, cpus });
    let machine = Arc::<Parts>::clone(&parts);
    let services = Services { bus, hotplug, files: Some(files), failures, console, stats, machine, fresh };
    let end = control::serve(status, &inherited.control_listener, &ending, &services)?;
    if let (Some(End::ReadyToSave), Some(files)) = (&end, &saves)
        && template::settle(status, &reports)
    {
        template::save(Saving { config: &config, machine: &parts, bus: &services.bus }, files)?;
        status.saved();
    }
    Ok(end)
}

/// What the VMM does with a template.
struct Template {
    saves: Option<Files>,
    uses: Option<Files>,
}

impl Template {
    fn of(asked: vmm::Template, files: Option<Files>) -> Self {
        match asked {
            vmm::Template::None => Self { saves: None, uses: None },
            vmm::Template::Save => Self { saves: files, uses: None },
            vmm::Template::Use => Self { saves: None, uses: files },
        }
    }
}

/// The kernel parameters for a guest that becomes a template.
fn of_template(parameters: &str) -> String {
    format!("{parameters} {}=1", renewal::PARAMETER)
}

/// Reserves the guest's RAM. The machine gets the part with which the guest boots and the part that it plugs first at
/// once.
fn reserve(machine: &Machine, size: Size) -> Result<Ram, machine::Error> {
    let memory = memory::reserve(size)?;
    let growth = size.growth().map(Growing::new);
    let boot = (GuestAddress(0), size.boot());
    for (start, length) in [boot].into_iter().chain(growth.as_ref().map(Growing::covered)) {
        if length > 0 {
            machine.add_ram(&memory, start, length)?;
        }
    }
    Ok(Ram { memory, boot: size.boot(), growth })
}

/// The action for the agent's connection: the guest onlines the rest of its memory, and then `then` is called, so that
/// no container begins, and nothing is saved, without that memory.
fn when_grown(growth: Option<Growth>, then: OnReached) -> OnReached {
    match growth {
        Some(growth) => Box::new(move || growth.grow(then)),
        None => then,
    }
}

/// Reports the agent's connection to the runtime.
fn report_agent(status: &Arc<StatusSocket>) -> OnReached {
    let status = Arc::clone(status);
    Box::new(move || status.reached(Stage::AgentConnected))
}

/// Makes the main thread leave its loop to save the guest.
fn end_to_save(ending: &Arc<Ending>) -> OnReached {
    let ending = Arc::clone(ending);
    Box::new(move || ending.set(End::ReadyToSave))
}
