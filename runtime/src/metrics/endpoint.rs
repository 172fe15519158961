//! The metrics of a sandbox on a socket of its own, `metrics.sock` in its directory: `GET /metrics` over HTTP/1.
//!
//! The sandbox's relay serves it. A scrape has a thread of its own, and only one at a time, so that neither a slow reader
//! nor a guest that does not answer keeps the relay from its work; other clients wait in the socket's queue meanwhile.
//! Of the sandbox's directory, the relay has only the sockets.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Reach, Sandbox, Subject, exposition};
use crate::relay::service::{Adopt, Running, Served, Service};
use crate::state::METRICS_SOCKET;
use crate::sys::deadline::Deadline;
use crate::sys::descriptors;
use crate::sys::own_proc::OwnProc;
use crate::vm::{AGENT_SOCKET, CONTROL_SOCKET, Control};

/// Time limit for the answers of VMM and agent, for a client's request, and for sending the answer.
const WITHIN: Duration = Duration::from_secs(5);

/// Longest request, in bytes.
const MAX_REQUEST: usize = 8 << 10;

/// Largest part of `/proc/net/dev` that is read, in bytes: a line has about 130.
const MAX_INTERFACES: usize = 64 << 10;

/// Stack of a scrape's thread, in bytes.
const STACK: usize = 256 << 10;

/// What a relay needs to serve metrics.
#[derive(Debug)]
pub struct Metrics {
    subject: Subject,
    listener: UnixListener,
    /// The sockets of the agent and of the VMM, as O_PATH descriptors, which can only be connected to.
    agent: OwnedFd,
    vmm: OwnedFd,
}

impl Metrics {
    /// Listens in the directory of a container that has its own VM, whose VMM has been started.
    ///
    /// # Errors
    /// bind(2)'s.
    pub fn prepare<'a>(served: &Served<'a>) -> anyhow::Result<Option<Box<dyn Service + 'a>>> {
        let subject = Subject::of(served.record).filter(|_| served.has_lease);
        let metrics = subject.map(|subject| Self::listen(subject, served.directory)).transpose();
        let metrics = metrics.with_context(|| format!("cannot listen on {METRICS_SOCKET}"))?;
        Ok(metrics.map(|metrics| Box::new(metrics) as Box<dyn Service>))
    }

    fn listen(subject: Subject, directory: BorrowedFd<'_>) -> io::Result<Self> {
        let socket = |name| descriptors::open_socket(directory, name);
        let listener = descriptors::listen(directory, METRICS_SOCKET)?;
        listener.set_nonblocking(true)?;
        Ok(Self { subject, listener, agent: socket(AGENT_SOCKET)?, vmm: socket(CONTROL_SOCKET)? })
    }
}

impl Service for Metrics {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.listener.as_fd(), self.agent.as_fd(), self.vmm.as_fd()]
    }

    fn adopt(&self, adopt: Adopt, proc: OwnProc) -> io::Result<Box<dyn Running>> {
        let listener = adopt(self.listener.as_fd()).into();
        let (agent, vmm) = (adopt(self.agent.as_fd()), adopt(self.vmm.as_fd()));
        Ok(Box::new(Endpoint::new(Self { subject: self.subject.clone(), listener, agent, vmm }, proc)?))
    }
}

/// Serves metrics until it is dropped.
#[derive(Debug)]
struct Endpoint {
    listener: UnixListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    subject: Subject,
    agent: OwnedFd,
    vmm: OwnedFd,
    proc: OwnProc,
    /// `/proc/net/dev`: a relay opens no file once it serves.
    interfaces: Option<File>,
    busy: AtomicBool,
    /// Becomes readable when the scrape is over.
    over: EventFd,
}

impl Endpoint {
    /// Takes over what was prepared.
    ///
    /// # Errors
    /// eventfd(2)'s.
    fn new(metrics: Metrics, proc: OwnProc) -> io::Result<Self> {
        let Metrics { subject, listener, agent, vmm } = metrics;
        let over = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let busy = AtomicBool::new(false);
        let interfaces = File::open("self/net/dev").ok();
        let shared = Shared { subject, agent, vmm, proc, interfaces, busy, over };
        Ok(Self { listener, shared: Arc::new(shared) })
    }
}

impl Running for Endpoint {
    /// The descriptor that becomes readable when a client comes or, while one is served, when that is done.
    fn polled(&self) -> Vec<BorrowedFd<'_>> {
        vec![if self.shared.busy.load(Ordering::Acquire) {
            self.shared.over.as_fd()
        } else {
            self.listener.as_fd()
        }]
    }

    /// Begins to serve the next client, if none is being served.
    fn advance(&mut self, _: usize) {
        // The event of a scrape that is done.
        let _ = self.shared.over.read();
        if self.shared.busy.load(Ordering::Acquire) {
            return;
        }
        let Ok((client, _)) = self.listener.accept() else { return };
        self.shared.busy.store(true, Ordering::Release);
        let scrape = Scrape(Arc::clone(&self.shared));
        let serve = move || {
            // The client sees its connection end.
            let _ = scrape.0.serve(&client);
        };
        // Without a thread the connection is dropped, which the client sees.
        let _ = thread::Builder::new().name("metrics".into()).stack_size(STACK).spawn(serve);
    }
}

/// The scrape that is being served.
struct Scrape(Arc<Shared>);

impl Drop for Scrape {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
        // The counter is read long before it is full.
        let _ = self.0.over.write(1);
    }
}

impl Shared {
    fn serve(&self, client: &UnixStream) -> io::Result<()> {
        answer(client, || exposition::text(&[Sandbox::measure(self.subject.clone(), self, WITHIN)]))
    }
}

impl Reach for Shared {
    fn vmm(&self, deadline: Deadline) -> io::Result<Control> {
        Control::over_by(self.proc.connect(&self.vmm)?, deadline)
    }

    fn agent(&self) -> io::Result<UnixStream> {
        self.proc.connect(&self.agent)
    }

    fn interfaces(&self) -> Option<String> {
        let file = self.interfaces.as_ref()?;
        let mut text = vec![0; MAX_INTERFACES];
        let mut length = 0;
        while let Ok(more @ 1..) = file.read_at(&mut text[length..], length as u64) {
            length += more;
        }
        text.truncate(length);
        String::from_utf8(text).ok()
    }
}

/// Reads a request and answers it.
fn answer(client: &UnixStream, metrics: impl FnOnce() -> String) -> io::Result<()> {
    let mut request = Vec::new();
    let mut bytes = [0; 1024];
    let mut requester = Deadline::within(WITHIN).on(client);
    while !ends(&request) {
        let length = requester.read(&mut bytes)?;
        if length == 0 || request.len() + length > MAX_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        request.extend_from_slice(&bytes[..length]);
    }
    let line = request.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let (status, content_type, body) = match (method, path) {
        (b"GET", b"/metrics") => {
            ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics())
        }
        (b"GET", _) => ("404 Not Found", PLAIN, "only /metrics is here\n".to_owned()),
        _ => ("405 Method Not Allowed", PLAIN, "only GET is understood\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.0 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut reader = Deadline::within(WITHIN).on(client);
    reader.write_all(head.as_bytes())?;
    reader.write_all(body.as_bytes())
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// Whether a request's head is complete.
fn ends(request: &[u8]) -> bool {
    request.windows(4).any(|window| window == b"\r\n\r\n")
        || request.windows(2).any(|window| window == b"\n\n")
}

#[cfg(test)]
#[path = "endpoint_test.rs"]
mod tests;
