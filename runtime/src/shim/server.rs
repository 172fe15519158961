//! The shim while it serves: one thread that waits for connections, requests, ends of children, and what guests tell.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::arguments::Arguments;
use super::guest::Guest;
use super::messages::Any;
use super::publisher::Publisher;
use super::settings;
use super::tasks::{Shim, Tasks};
use super::wire::{self, Connection, Incoming};
use crate::log;
use crate::state;
use crate::sys::descriptors;
use crate::sys::process;

/// The pipe to containerd's log, in the bundle.
const LOG: &str = "log";

/// containerd's ttrpc socket.
const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";

/// How long containerd may take to take the last events.
const TAKES_WITHIN: Duration = Duration::from_secs(3);

/// How long a shim goes on that has had containers and has none: longer than a logger may take after the removal of its container.
const ASKED_WITHIN: Duration = Duration::from_secs(20);

/// Becomes the shim of the bundle in the current directory, and serves until containerd ends it.
///
/// # Errors
/// What keeps it from serving.
pub fn run(
    listener: &UnixListener,
    socket: &Path,
    arguments: Arguments,
    options: Option<Any>,
) -> anyhow::Result<()> {
    let log = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(LOG);
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").context("/dev/null")?;
    for stdio in 0..=2 {
        descriptors::become_stdio(&null, stdio).context("standard streams")?;
    }
    drop(null);
    // Without a reader there is no log.
    if let Ok(log) = log {
        log::start_in(log, arguments.debug)?;
    }
    nix::unistd::setsid().context("setsid")?;
    nix::unistd::chdir("/").context("chdir")?;
    process::one_arena();
    // What a command that is a fork of the shim would find in the middle of being read by another thread is read before.
    state::boot_id();
    if let Some(program) = settings::beside() {
        process::set_program(program);
    }
    // Relays become children of the shim when the command that has made them ends.
    // SAFETY: prctl takes integers here.
    if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error()).context("PR_SET_CHILD_SUBREAPER");
    }
    if let Err(cause) = process::set_command_line(super::NAME, &arguments.of_server()) {
        tracing::debug!("the command line stays as it is: {cause}");
    }
    let children = SigSet::from(Signal::SIGCHLD);
    children.thread_block().context("cannot block SIGCHLD")?;
    let children = SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("signalfd")?;
    let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).context("eventfd")?;
    listener.set_nonblocking(true).context("the shim's socket")?;
    let publisher =
        Publisher::new(&arguments, std::env::var(TTRPC_ADDRESS).ok().filter(|socket| !socket.is_empty()));
    // Threads use it as long as the process lives.
    let shim: &'static Shim = Box::leak(Box::new(Shim::new(arguments, options, publisher, wake)));
    let result = serve(shim, listener, &children);
    shim.publisher.flush(TAKES_WITHIN);
    // containerd starts a new one where it wants one.
    let _ = fs::remove_file(socket);
    result
}

fn serve(shim: &'static Shim, listener: &UnixListener, children: &SignalFd) -> anyhow::Result<()> {
    let mut connections: Vec<(Arc<Connection>, Incoming)> = Vec::new();
    let mut idle = Idle::default();
    loop {
        let (guests, mut listens_in) = guests(shim);
        match idle.left(&shim.tasks()) {
            Some(left) if left.is_zero() => break,
            Some(left) => {
                listens_in =
                    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            }
            None => {}
        }
        let fixed = [children.as_fd(), shim.wake.as_fd(), listener.as_fd()];
        let all = fixed.into_iter().chain(connections.iter().map(|(connection, _)| connection.as_fd()));
        let all = all.chain(guests.iter().map(|(_, guest)| guest.as_fd()));
        let mut fds: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, listens_in) {
            Err(nix::errno::Errno::EINTR) => continue,
            result => result.context("poll")?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(fds);
        let (fixed, rest) = ready.split_at(3);
        let (from_containerd, from_guests) = rest.split_at(connections.len());
        if fixed[0] {
            while matches!(children.read_signal(), Ok(Some(_))) {}
            shim.reap();
        }
        if fixed[1] {
            // It is only there to wake.
            let _ = shim.wake.read();
        }
        for ((id, guest), _) in guests.iter().zip(from_guests).filter(|(_, ready)| **ready) {
            shim.hear(&mut shim.tasks(), id, guest, 1);
        }
        let mut ready = from_containerd.iter();
        connections.retain_mut(|(connection, incoming)| {
            !ready.next().is_some_and(|ready| *ready) || attend(shim, connection, incoming)
        });
        if fixed[2] {
            accept(listener, &mut connections);
        }
    }
    Ok(())
}

/// When a shim ends: containerd asks it to, or its last container was removed some time ago. A containerd that is busy may give up
/// before it asks.
#[derive(Default)]
struct Idle {
    has_had_containers: bool,
    since: Option<Instant>,
}

impl Idle {
    /// How long the shim goes on without a container; `None` if it has one, or has had none, or has a sandbox by the sandbox API, whose
    /// status is asked for until it is removed.
    fn left(&mut self, tasks: &Tasks) -> Option<Duration> {
        if tasks.is_over {
            return Some(Duration::ZERO);
        }
        if !tasks.containers.is_empty() || !tasks.creating.is_empty() || tasks.of_sandbox.is_some() {
            *self = Self { has_had_containers: true, since: None };
            return None;
        }
        let since = self.has_had_containers.then(|| *self.since.get_or_insert_with(Instant::now))?;
        Some(ASKED_WITHIN.saturating_sub(since.elapsed()))
    }
}

/// The connections of guests to which the shim listens now, with the containers that they are about, and how long it is until
/// it listens to another one.
fn guests(shim: &Shim) -> (Vec<(String, Arc<Guest>)>, PollTimeout) {
    let tasks = shim.tasks();
    let mut guests = Vec::new();
    let mut quiet_for: Option<Duration> = None;
    for (id, container) in &tasks.containers {
        let Some(guest) = &container.events else { continue };
        let quiet = guest.quiet_for();
        if quiet.is_zero() {
            guests.push((id.clone(), Arc::clone(guest)));
        } else {
            quiet_for = Some(quiet_for.map_or(quiet, |least| least.min(quiet)));
        }
    }
    // The poll before its time would be in vain.
    let timeout = quiet_for.map(|quiet| (quiet + Duration::from_millis(1)).as_millis());
    (guests, timeout.map_or(PollTimeout::NONE, |ms| PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)))
}

fn accept(listener: &UnixListener, connections: &mut Vec<(Arc<Connection>, Incoming)>) {
    match listener.accept().and_then(|(stream, _)| Connection::new(stream)) {
        Ok(connection) => connections.push((connection, Incoming::default())),
        Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
        Err(cause) => tracing::warn!("cannot accept a connection: {cause}"),
    }
}

/// Reads requests and answers them; false when the connection has ended.
fn attend(shim: &'static Shim, connection: &Arc<Connection>, incoming: &mut Incoming) -> bool {
    let mut read = || -> io::Result<bool> {
        let goes_on = connection.read(incoming)?;
        while let Some(frame) = incoming.next()? {
            if let Some((request, reply)) = wire::request(connection, &frame) {
                shim.serve(request, reply);
            }
        }
        Ok(goes_on)
    };
    read().unwrap_or_else(|cause| {
        tracing::warn!("a connection of containerd: {cause}");
        false
    })
}
