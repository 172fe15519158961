//! Port forwarding of the CRI, which dials `localhost` in a pod's network namespace on the host: a connection to a port
//! there reaches the same port on the guest's loopback interface.
//!
//! ```text
//!  containerd ── 127.0.0.1:PORT ──▶ (sk_lookup) listener of the sandbox's relay ── vsock ──▶ agent ──▶ 127.0.0.1:PORT
//! ```
//!
//! Nothing of the namespace is changed: no address, route or packet filter. A program that is attached to it picks the
//! relay's listener for every connection to a loopback address, and is gone with the relay.

mod serve;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use nix::errno::Errno;
use stockade_sys::sk_lookup::{self, Destination, Local};

use crate::network::Namespace;
use crate::relay::service::{Adopt, Running, Served, Service};
use crate::sys::descriptors;
use crate::sys::own_proc::OwnProc;
use crate::vm::AGENT_SOCKET;
use serve::Forwarder;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use serve::greet;

/// What a relay needs to forward.
#[derive(Debug)]
pub struct PortForward {
    /// Listeners for IPv4 and, if the host has it, IPv6.
    listeners: Vec<TcpListener>,
    /// The program that gives the listeners every connection to a loopback address, while it is open.
    program: OwnedFd,
    /// The agent's socket, as an O_PATH descriptor, which can only be connected to.
    agent: OwnedFd,
}

impl PortForward {
    /// Prepares the service for the sandbox of a pod whose network namespace an engine has made. If that fails, the log
    /// says so: a pod works without it.
    ///
    /// # Errors
    /// None.
    pub fn prepare<'a>(served: &Served<'a>) -> anyhow::Result<Option<Box<dyn Service + 'a>>> {
        let forward = served.pod_network.and_then(|path| {
            Self::listen(path, served.directory).inspect_err(|error| tracing::warn!("{error:#}")).ok()
        });
        Ok(forward.map(|forward| Box::new(forward) as Box<dyn Service>))
    }

    /// Listens in the network namespace at `path` for a sandbox whose VMM has been started and has its sockets in
    /// `directory`.
    /// It fails mostly because the host's kernel is older than 5.9, or because the caller may not load programs into
    /// it.
    fn listen(path: &Path, directory: BorrowedFd<'_>) -> anyhow::Result<Self> {
        let prepare = || -> anyhow::Result<Self> {
            let agent = descriptors::open_socket(directory, AGENT_SOCKET)?;
            let namespace = Namespace::open(path)?;
            let listeners = namespace.within(|| listeners().context("listen in the namespace"))?;
            let program =
                steer(namespace.as_fd(), &listeners).context("redirect connections to the listeners")?;
            Ok(Self { listeners, program, agent })
        };
        prepare().with_context(|| {
            format!(
                "connections to localhost in the network namespace {} (kubectl port-forward) will not reach the pod",
                path.display()
            )
        })
    }
}

impl Service for PortForward {
    fn name(&self) -> &'static str {
        "port forwarding"
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd).chain([self.program.as_fd(), self.agent.as_fd()]).collect()
    }

    fn adopt(&self, adopt: Adopt, proc: OwnProc) -> io::Result<Box<dyn Running>> {
        let listeners = self.listeners.iter().map(|listener| adopt(listener.as_fd()).into()).collect();
        let (program, agent) = (adopt(self.program.as_fd()), adopt(self.agent.as_fd()));
        Ok(Box::new(Forwarder::new(listeners, program, agent, proc)))
    }
}

/// A listener for each family in the calling thread's network namespace: a socket belongs to the namespace in which it
/// was made.
fn listeners() -> io::Result<Vec<TcpListener>> {
    let on = |address: SocketAddr| -> io::Result<TcpListener> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let first = on((Ipv4Addr::LOCALHOST, 0).into())?;
    // A host without IPv6 has no ::1 to connect to.
    Ok([first].into_iter().chain(on((Ipv6Addr::LOCALHOST, 0).into()).ok()).collect())
}

/// Gives the listeners, the first for IPv4 and the second for IPv6, every connection to `localhost` that is made in the network
/// namespace, until the returned descriptor is closed. The CRI uses no other addresses: at 127.0.0.11 there may be a
/// resolver.
fn steer(namespace: BorrowedFd<'_>, listeners: &[TcpListener]) -> Result<OwnedFd, Errno> {
    let to = |address| Destination { protocol: libc::IPPROTO_TCP, address, port: None };
    let steered: Vec<_> = [to(Local::Address4(Ipv4Addr::LOCALHOST.octets())), to(Local::Loopback6)]
        .into_iter()
        .zip(listeners.iter().map(AsFd::as_fd))
        .collect();
    sk_lookup::attach(namespace, &steered)
}
