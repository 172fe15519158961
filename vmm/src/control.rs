//! The main thread's loop: it handles requests of the runtime, devices to start and stop, the end of the guest, and the
//! end of the VMM's lease.

use std::{
    collections::HashMap,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use stockade_protocol::{
    frame::{self, FrameBuffer},
    vmm::{DeviceFailure, MAX_QUEUE_PAIRS, Request, Response},
};
use stockade_sys::fd_passing;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{
    adjustable::Adjustable,
    bus::Bus,
    console::Output,
    devices::{blk::Blk, net::Nic},
    file_server,
    greeting::Greeting,
    hotplug::HotplugSlots,
    stats::{self, StatsSource},
    status::StatusSocket,
    template::Fresh,
    vcpu::End,
    virtio::{device::VirtioDevice, failures::Failures},
};

/// Longest request, in bytes.
const REQUEST_LIMIT: usize = 4 << 10;

/// How long the runtime may take to read a response before its connection is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a clone may be starting.
const STARTS_WITHIN: Duration = Duration::from_secs(2);

/// The answer to requests that only the VMM of 0.1 carries out.
const NO_SHARES: &str = "the file server is asked for shares";

const STATUS: u64 = 0;
const LISTENER: u64 = 1;
const ENDING: u64 = 2;
const ACTIVATION: u64 = 3;
const FAILURES: u64 = 4;
const FILE_SERVER: u64 = 5;
const FIRST_CONNECTION: u64 = 6;

/// Why the loop cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// epoll failed.
    #[error("epoll: {0}")]
    Epoll(#[from] Errno),
    /// A descriptor is not a socket of the expected kind.
    #[error("control socket: {0}")]
    Socket(#[from] io::Error),
}

/// The way in which a vCPU thread tells the main thread that the machine has ended.
#[derive(Debug)]
pub struct Ending {
    event: EventFd,
    end: Mutex<Option<End>>,
}

impl Ending {
    /// For a machine that has not ended.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { event: EventFd::new(EFD_NONBLOCK)?, end: Mutex::new(None) })
    }

    /// Reports that the machine has ended; only the first report counts.
    pub fn set(&self, end: End) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(end);
        // The counter of an eventfd that is read once cannot be full.
        let _ = self.event.write(1);
    }

    fn take(&self) -> Option<End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What requests are about.
pub struct Services {
    /// The devices.
    pub bus: Arc<Bus>,
    /// The slots for devices that are added.
    pub hotplug: HotplugSlots,
    /// The file server, if there is one.
    pub files: Option<file_server::Process>,
    /// Why devices have failed.
    pub failures: Failures,
    /// The guest's console.
    pub console: Output,
    /// Figures of this process.
    pub stats: StatsSource,
    /// The machine.
    pub machine: Arc<dyn Adjustable>,
    /// RAM that a clone has in small pages until it has started.
    pub fresh: Option<Fresh>,
}

/// A connection of the runtime.
pub(crate) struct Connection {
    stream: UnixStream,
    greeting: Greeting,
    requests: FrameBuffer,
    /// Descriptors that belong to the next complete request.
    descriptors: Vec<OwnedFd>,
}

impl Connection {
    /// A connection without a request yet.
    pub(crate) fn new(stream: UnixStream) -> Self {
        let requests = FrameBuffer::new(REQUEST_LIMIT);
        Self { stream, greeting: Greeting::default(), requests, descriptors: Vec::new() }
    }
}

/// Serves requests until the machine ends, or until nobody holds the other end of the status socket (`None`).
///
/// # Errors
/// Any [`Error`].
pub fn serve(
    status: &StatusSocket,
    listener: &UnixListener,
    ending: &Ending,
    services: &Services,
) -> Result<Option<End>, Error> {
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let watch = |fd: &dyn AsRawFd, flags, token| {
        // SAFETY: the descriptor is open for the duration of the call.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd.as_raw_fd()) };
        epoll.add(fd, EpollEvent::new(flags, token))
    };
    watch(&status.as_fd(), EpollFlags::EPOLLRDHUP, STATUS)?;
    watch(listener, EpollFlags::EPOLLIN, LISTENER)?;
    watch(&ending.event, EpollFlags::EPOLLIN, ENDING)?;
    watch(services.bus.activation_event(), EpollFlags::EPOLLIN, ACTIVATION)?;
    watch(services.failures.event(), EpollFlags::EPOLLIN, FAILURES)?;
    if let Some(files) = &services.files {
        watch(&files.as_fd(), EpollFlags::EPOLLIN, FILE_SERVER)?;
    }

    let mut connections = HashMap::<u64, Connection>::new();
    let mut next = FIRST_CONNECTION;
    let mut events = [EpollEvent::empty(); 8];
    let mut starting = services.fresh.as_ref().map(|fresh| (fresh, Instant::now() + STARTS_WITHIN));
    loop {
        let left = starting.as_ref().map(|(_, end)| end.saturating_duration_since(Instant::now()));
        // It is rounded down, and the wait must not end before its time.
        let timeout = left.map(|left| EpollTimeout::try_from(left + Duration::from_millis(1)));
        let ready =
            match epoll.wait(&mut events, timeout.transpose().ok().flatten().unwrap_or(EpollTimeout::NONE)) {
                Err(Errno::EINTR) => 0,
                ready => ready?,
            };
        if left.is_some_and(|left| left.is_zero())
            && let Some((fresh, _)) = starting.take()
        {
            fresh.use_huge_pages();
        }
        for event in &events[..ready] {
            match event.data() {
                STATUS => return Ok(None),
                ENDING => {
                    if let Some(end) = ending.take() {
                        return Ok(Some(end));
                    }
                }
                ACTIVATION => services.bus.start_and_stop_devices(),
                FAILURES => report_failures(status, services),
                FILE_SERVER => {
                    let words = services.files.as_ref().map(file_server::Process::final_output);
                    return Ok(Some(End::Failed(words.unwrap_or_default())));
                }
                LISTENER => {
                    // The client has gone already, or there is no descriptor left for it, and it sees the connection
                    // end.
                    if let Ok((stream, _)) = listener.accept()
                        && prepare(&stream).is_ok()
                        && watch(&stream, EpollFlags::EPOLLIN, next).is_ok()
                    {
                        connections.insert(next, Connection::new(stream));
                        next += 1;
                    }
                }
                token => {
                    // Dropping a connection closes it, which ends its registration too.
                    if let Some(connection) = connections.get_mut(&token)
                        && answer(connection, services).is_err()
                    {
                        connections.remove(&token);
                    }
                }
            }
        }
    }
}

/// Reports failures to the runtime and on the console.
fn report_failures(status: &StatusSocket, services: &Services) {
    for DeviceFailure { device, cause, .. } in services.failures.take_news() {
        services.console.add_line(&format!("stockade-vmm: the device {device} has failed: {cause}"));
        status.device_failed(device, cause);
    }
}

fn prepare(stream: &UnixStream) -> io::Result<()> {
    // Blocking, for the answers: reading happens only when there is something to read.
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))
}

/// Reads what has come and answers what is complete; an error drops the connection.
///
/// # Errors
/// The bytes are not a request, or nobody takes the answer.
pub(crate) fn answer(connection: &mut Connection, services: &Services) -> io::Result<()> {
    let mut bytes = [0; 1024];
    let before = connection.descriptors.len();
    let length =
        fd_passing::receive(&connection.stream, &mut bytes, MAX_QUEUE_PAIRS, &mut connection.descriptors)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if before > 0 && connection.descriptors.len() > before {
        // Two requests at once: whose descriptors are these?
        return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors in the middle of a request"));
    }
    connection.requests.extend(&bytes[..length]);
    if !connection.greeting.hear(&mut connection.requests, &connection.stream)? {
        return Ok(());
    }
    while let Some(request) = connection.requests.next().map_err(io::Error::other)? {
        // Descriptors that a request does not use are closed.
        let descriptors = std::mem::take(&mut connection.descriptors);
        if matches!(request, Request::SetMemory { .. }) {
            connection.greeting.welcome(&connection.stream)?;
        }
        if let Some(response) = respond(request, descriptors, &connection.stream, services) {
            connection.greeting.answer(&connection.stream, &response)?;
        }
    }
    Ok(())
}

fn set_memory(mib: u32, stream: &UnixStream, services: &Services) -> Result<(), String> {
    let mut stream = stream.try_clone().map_err(|e| e.to_string())?;
    let answer = frame::encode(&Response::Done).map_err(|e| e.to_string())?;
    // The client may have gone.
    let on_reached = Box::new(move || drop(stream.write_all(&answer)));
    services.machine.resize(mib, on_reached)
}

/// The answer to a request; `None` if it comes later.
fn respond(
    request: Request,
    descriptors: Vec<OwnedFd>,
    stream: &UnixStream,
    services: &Services,
) -> Option<Response> {
    let refused = |reason: String| Some(Response::Error(reason));
    let outcome = match request {
        Request::AddShare { .. } | Request::RemoveShare { .. } => Err(NO_SHARES.into()),
        Request::AddNic(nic) => return Some(add(Nic::new(nic, descriptors), services)),
        Request::AddDisk(disk) => return Some(add(Blk::new(disk, descriptors), services)),
        Request::RemoveDevice { slot } => services.hotplug.remove(slot).map_err(|e| e.to_string()),
        Request::Threads => {
            return Some(Response::Threads(stats::thread_times(services.files.as_ref())));
        }
        Request::Failures => return Some(Response::Failures(services.failures.all())),
        Request::SetMemory { mib } => return set_memory(mib, stream, services).err().and_then(refused),
        Request::Memory => return Some(Response::Memory { mib: services.machine.mib() }),
        Request::AddVcpus { count } => services.machine.add_vcpus(count),
        Request::Position => {
            return match services.machine.position() {
                Some(position) => Some(Response::Position(position)),
                None => refused("the CPU does not stop to say where it is".into()),
            };
        }
        Request::Console => return Some(Response::Console(services.console.bytes())),
        Request::Figures => {
            return match services.stats.read(services.files.as_ref()) {
                Ok(stats) => Some(Response::Figures(stats)),
                Err(e) => refused(format!("cannot read the VMM's memory map: {e}")),
            };
        }
    };
    Some(outcome.map_or_else(Response::Error, |()| Response::Done))
}

fn add<E: ToString>(device: Result<impl VirtioDevice + 'static, E>, services: &Services) -> Response {
    let added = device
        .map_err(|e| e.to_string())
        .and_then(|device| services.hotplug.add(Box::new(device)).map_err(|e| e.to_string()));
    added.map_or_else(Response::Error, Response::Slot)
}

#[cfg(test)]
#[path = "control_test.rs"]
mod tests;
