//! The relay's own side: it becomes the process that callers look at through /proc/PID.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::setsid;
use stockade_sys::descriptors::close_all_but;
use stockade_sys::landlock;

use super::error::{RelayError, system};
use super::held_streams::{self, Adopted};
use super::messages::Message;
use super::namespaces::{self, Namespaces};
use super::notify::Notifier;
use super::plan::Plan;
use super::serve::{self, Ends};
use super::service::{Running, Service};
use crate::log;
use crate::sys::own_proc::OwnProc;
use crate::sys::seccomp::{self, Kind};
use crate::sys::terminal::{self, Window};
use crate::sys::{descriptors, privileges, process, selinux, signals};

/// Runs the relay to its end; returns its exit status.
pub(super) fn run(plan: &Plan<'_>, network: Option<BorrowedFd<'_>>, socket: BorrowedFd<'_>) -> i32 {
    match prepare(plan, network, socket) {
        Ok(ends) => serve::serve(ends),
        Err(error) => {
            // A creator that is gone needs no explanation.
            let _ = Message::Failed(error.to_string()).send(socket);
            1
        }
    }
}

fn prepare(
    plan: &Plan<'_>,
    network: Option<BorrowedFd<'_>>,
    socket: BorrowedFd<'_>,
) -> Result<Ends, RelayError> {
    let signals = signals::block_all().map_err(system("signals"))?;
    if let Some(network) = network {
        setns(network, CloneFlags::CLONE_NEWNET).map_err(|e| system("network namespace")(e.into()))?;
    }
    let label = plan.label.and_then(|label| Some((selinux::open_current().ok()?, label)));
    let mut keep: Vec<RawFd> = vec![0, 1, 2, signals.as_raw_fd(), socket.as_raw_fd()];
    keep.extend(label.iter().map(|(file, _)| file.as_raw_fd()));
    let lent =
        plan.namespaces.descriptors().chain(plan.slave).chain(plan.notify.map(AsFd::as_fd)).chain(plan.heir);
    keep.extend(lent.map(|fd| fd.as_raw_fd()));
    let streams = plan.preserved.open_ends().map_err(system("preserved descriptors"))?;
    keep.extend(streams.iter().flat_map(|ends| ends.source.iter().chain(&ends.sink)).map(AsRawFd::as_raw_fd));
    log::end();
    // SAFETY: what is closed belongs to the creator's part of the stack, which a cloned child never returns to.
    unsafe { close_all_but(0, &keep) }.map_err(|e| system("close_range")(e.into()))?;
    setsid().map_err(|e| system("setsid")(e.into()))?;
    take_stdio(plan.slave).map_err(system("stdio"))?;
    // This is before the creator, which waits for this relay, sets the terminal to raw mode.
    let window = plan.terminal.then(Window::of_stdio).transpose().map_err(system("terminal"))?;
    let notifier = plan
        .notify
        .map(|socket| Notifier::new(adopt(socket.as_fd())))
        .transpose()
        .map_err(system("NOTIFY_SOCKET"))?;

    let (own, made) = match &plan.namespaces {
        Namespaces::Own(own) => (Some(own), Some(own.make(socket)?)),
        Namespaces::Of(relay) => {
            namespaces::join(*relay)?;
            drop(adopt(*relay));
            (None, None)
        }
    };
    let (watches, proc) = made.map_or_else(Default::default, |made| (made.watches, made.proc));
    let name = Path::new(&plan.args[0]).file_name().and_then(|name| name.to_str()).unwrap_or("container");
    // This fails without CAP_SYS_RESOURCE; then `ps` shows the runtime's name, which does no harm.
    let _ = process::set_command_line(name, plan.args);
    if let Some(user) = own.and_then(|own| own.user).map(adopt) {
        setns(user, CloneFlags::CLONE_NEWUSER).map_err(|e| system("user namespace")(e.into()))?;
    }
    // Without a procfs, VMM and agent cannot be reached: clients see that nobody listens.
    let proc = proc.map(OwnProc::enter).transpose().map_err(system("enter proc"))?;
    let services = own.map(|own| own.services).unwrap_or_default();
    let services = services.iter().filter_map(|service| adopt_service(service.as_ref(), proc).transpose());
    let services = services.collect::<Result<_, _>>()?;
    let ends = Ends {
        signals,
        creator: adopt(socket),
        lease: own.and_then(|own| own.lease).map(adopt),
        console_log: own.and_then(|own| own.console_log).map(|log| adopt(log).into()),
        window,
        hangs_up: plan.slave.is_some(),
        streams,
        notifier,
        services,
        watches,
        adopted: own.map(|own| Adopted::new(adopt(own.adopted))),
        heir: plan.heir.map(adopt).and_then(take_heir),
    };
    if let Some((mut file, label)) = label {
        // The creator looks whether the host's policy allows it.
        let _ = file.write_all(label.as_bytes());
    }
    confine(&ends)?;
    Message::Prepared.send(socket).map_err(system("socket"))?;
    Ok(ends)
}

/// From here on the relay only copies bytes.
fn confine(ends: &Ends) -> Result<(), RelayError> {
    let connects = !ends.services.is_empty();
    let kind = match (connects, ends.heir.is_some()) {
        (true, false) => Kind::ConnectingRelay,
        (false, false) => Kind::Relay,
        (true, true) => Kind::ConnectingRelayWithHeir,
        (false, true) => Kind::RelayWithHeir,
    };
    privileges::keep_only(0).map_err(|e| system("giving up capabilities")(e.into()))?;
    landlock::restrict(&[], &[]).map_err(|e| system("Landlock")(e.into()))?;
    if connects {
        process::one_arena();
    }
    seccomp::restrict(kind).map_err(|e| system("seccomp")(e.into()))
}

/// Moves the heir's socket to the only number to which the filter allows sending, and prevents that another descriptor
/// gets that number. If the caller's limit of descriptors is too low for that, there is no heir.
fn take_heir(heir: OwnedFd) -> Option<OwnedFd> {
    // SAFETY: nothing has this number: all descriptors that the relay keeps are far below.
    unsafe { stockade_sys::descriptors::duplicate_to(&heir, held_streams::HEIR) }.ok()?;
    let most = held_streams::HEIR as libc::rlim_t;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).ok()?;
    // SAFETY: it has just been made, and nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(held_streams::HEIR) })
}

/// Takes over a service; without a procfs there is no service, and its descriptors are closed.
fn adopt_service(
    service: &dyn Service,
    proc: Option<OwnProc>,
) -> Result<Option<Box<dyn Running>>, RelayError> {
    let Some(proc) = proc else {
        service.descriptors().into_iter().map(adopt).for_each(drop);
        return Ok(None);
    };
    service.adopt(adopt, proc).map(Some).map_err(system(service.name()))
}

/// Takes over a descriptor of the creator, of which this process has its own copy.
fn adopt(fd: BorrowedFd<'_>) -> OwnedFd {
    // SAFETY: the owner is in the creator's part of the stack, which a cloned child never returns to.
    unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) }
}

/// The relay's own stdio: the terminal that was made for it, or the inherited descriptors, opened again so that they
/// never block.
fn take_stdio(slave: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if let Some(slave) = slave {
        terminal::control_by(slave)?;
        for stdio in 0..=2 {
            let own = descriptors::reopen_nonblocking(slave, stdio != 0)?;
            descriptors::become_stdio(&own, stdio)?;
        }
        // Closed when this scope ends: only stdio stays.
        drop(adopt(slave));
        return Ok(());
    }
    for (stdio, write) in [(0, false), (1, true), (2, true)] {
        // SAFETY: descriptors 0 to 2 are open in every Rust program, and nobody closes them.
        let inherited = unsafe { BorrowedFd::borrow_raw(stdio) };
        let own = descriptors::reopen_nonblocking(inherited, write)?;
        descriptors::become_stdio(&own, stdio)?;
    }
    Ok(())
}
