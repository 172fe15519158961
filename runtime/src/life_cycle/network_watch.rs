//! Interfaces that come, change or go while the container runs (`docker network connect`, Multus).
//!
//! To connect them, a process has to make taps. The relay cannot, because it copies what a hostile guest sends and has
//! given up its capabilities. So a container with a network has a process of the runtime that waits for the kernel's
//! messages and then does what `start` does. It talks to agent and VMM too: it keeps CAP_NET_ADMIN alone, in the
//! container's network namespace, has of the host's files only the container's state, to read, and /dev/net/tun, and a
//! seccomp filter of its own. What it remembers is in a directory apart, because the record tells what runs as root
//! when the container is deleted; and it locks nothing, because commands would wait for it. It also passes on what
//! containers ask the resolver that the namespace has ([`resolver`]). It is in the VMM's PID namespace: it ends with
//! the VM, nobody has to remember it, and `podman top`, which lists the relay's, does not show it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::WaitStatus;
use stockade_sys::capabilities::{self, Capability};

use super::{handle, network, resolver};
use crate::cgroup::Cgroup;
use crate::log;
use crate::network::{Events, Look, Namespace, own_root};
use crate::state::{self, Directory, Record};
use crate::sys::deadline::Deadline;
use crate::sys::seccomp::{self, Kind};
use crate::sys::{descriptors, privileges, process, signals};
use crate::vm::agent::AnswerDeadline;

/// How long to wait for the rest of a change that has several parts: interfaces get their names, addresses and routes
/// one by one.
const SETTLES_WITHIN: Duration = Duration::from_millis(100);

/// Begins to watch the network namespace of a container that has interfaces; `query` is what [`resolver::offer`] has returned.
///
/// # Errors
/// What could not be set up; the container then keeps the network that it has.
pub(super) fn begin(directory: &Directory, record: &Record, query: Option<UnixStream>) -> anyhow::Result<()> {
    let begin = || -> anyhow::Result<()> {
        let (Some(relay), Some(vmm)) = (record.relay, record.vmm.and_then(|vmm| vmm.open())) else {
            return Ok(());
        };
        let cgroup = record.cgroup.as_ref().map(Cgroup::open).transpose()?;
        directory.make_network_directory()?;
        let launch = || {
            let cgroup = cgroup.as_ref().map(AsFd::as_fd);
            let body = || watch(directory, record, relay.pid, query.as_ref());
            // SAFETY: this process is a copy of a command, which has one thread.
            let watcher = unsafe { process::clone(libc::CLONE_NEWNS, cgroup, body) };
            status(watcher.map(drop).map_err(io::Error::from))
        };
        // A process that has entered another PID namespace may not be able to go back, so an intermediate process
        // enters it. That one forks once more, because an orphan goes to the init of its parent's namespace, and
        // engines wait for all children of theirs.
        let between = || {
            let entered = setns(&vmm, CloneFlags::CLONE_NEWPID).map_err(io::Error::from);
            entered
                // SAFETY: this process is a copy of a command, which has one thread.
                .and_then(|()| unsafe { process::clone(0, None, launch) }?.reap())
                .map_or_else(|e| status(Err(e)), exited)
        };
        // SAFETY: commands have one thread.
        let between = unsafe { process::clone(0, None, between) }?;
        match exited(between.reap()?) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno).into()),
        }
    };
    begin().context("interfaces that are added later will not be connected to the VM")
}

/// An exit status that tells what failed.
fn status(result: io::Result<()>) -> i32 {
    result.err().map_or(0, |cause| cause.raw_os_error().unwrap_or(libc::EIO))
}

/// The exit status that a wait status has.
fn exited(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, status) => status,
        _ => libc::ECHILD,
    }
}

/// The watcher's whole life; returns its exit status.
fn watch(directory: &Directory, record: &Record, relay: i32, query: Option<&UnixStream>) -> i32 {
    match prepare(directory, relay, query).and_then(|watched| serve(directory, record, watched)) {
        Ok(()) => 0,
        Err(error) => {
            tracing::warn!("changes of the network namespace are not followed any more: {error:#}");
            1
        }
    }
}

/// A network namespace that this process is in, and what the kernel tells of it.
struct Watched {
    namespace: Namespace,
    events: Events,
    /// The connection that waits for a query to the resolver.
    query: Option<UnixStream>,
}

/// Gives up what belongs to the command and the host: the lock on the container, the lease of the VM, the output, and
/// the host's files.
fn prepare(directory: &Directory, relay: i32, query: Option<&UnixStream>) -> anyhow::Result<Watched> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for stdio in 0..=2 {
        descriptors::become_stdio(&null, stdio)?;
    }
    let query = query.map(UnixStream::try_clone).transpose()?;
    let keep: Vec<_> = [0, 1, 2]
        .into_iter()
        .chain(log::descriptor())
        .chain(query.as_ref().map(AsRawFd::as_raw_fd))
        .collect();
    // It is closed below with all others, and is not used any more.
    let _ = std::os::fd::IntoRawFd::into_raw_fd(null);
    // SAFETY: what is closed belongs to the command's part of the stack, which a cloned child never returns to.
    unsafe { stockade_sys::descriptors::close_all_but(0, &keep) }?;
    signals::unblock_all()?;
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    // Otherwise `ps` would show the arguments of the command that has forked this process.
    let _ = process::set_command_line("stockade", &["stockade: network".to_owned()]);
    let mut namespace = Namespace::open(Path::new(&format!("/proc/{relay}/ns/net")))?;
    // This reads and keeps the boot ID, which cannot be read later.
    state::boot_id();
    capabilities::forbid_new_privileges().context("no_new_privs")?;
    own_root::enter(directory.path(), &directory.network_directory(), &[resolver::PORT])
        .context("a root of its own")?;
    namespace.enter()?;
    privileges::keep_only(Capability::NetAdmin.bit()).context("give up capabilities")?;
    seccomp::restrict(Kind::NetworkWatch).context("seccomp")?;
    Ok(Watched { namespace, events: Events::open()?, query })
}

fn serve(
    directory: &Directory,
    record: &Record,
    Watched { namespace, events, mut query }: Watched,
) -> anyhow::Result<()> {
    let mut has_resolver = false;
    // Changes since `start` has read the namespace come first.
    loop {
        // The command's own descriptor is closed already.
        let directory = directory.peek_neighbour(&record.id)?;
        if !has_resolver
            && let Some(query) = query.take().or_else(|| resolver::offer(&namespace, directory.as_fd()))
        {
            has_resolver = true;
            if let Err(cause) = resolver::serve(directory.as_fd(), query) {
                tracing::warn!("containers cannot ask the resolver of the network namespace: {cause}");
            }
        }
        let Some(current) = directory.read()?.filter(|current| current.created == record.created) else {
            return Ok(());
        };
        let mut wait = AnswerDeadline::new(directory.as_fd(), Deadline::within(handle::ANSWERS_WITHIN));
        let remember =
            |record: &Record| record.network.as_ref().map_or(Ok(()), |now| directory.write_network(now));
        if let Err(error) =
            network::refresh_in(&namespace, Look::Later, &directory, &current, &mut wait, remember)
        {
            tracing::warn!("a change of the network namespace: {error:#}");
        }
        events.wait()?;
        std::thread::sleep(SETTLES_WITHIN);
        events.forget()?;
    }
}
