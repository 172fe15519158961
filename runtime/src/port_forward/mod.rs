//! Port forwarding of the CRI, which dials `localhost` in a pod's network namespace on the host: whatever port is dialled
//! there is reached on the guest's loopback interface.
//!
//! ```text
//!  containerd ── 127.0.0.1:PORT ──▶ (steering) listener of the sandbox's relay ── vsock ──▶ agent ──▶ 127.0.0.1:PORT
//! ```
//!
//! Nothing of the namespace is changed: no address, route or packet filter. A program that is attached to it picks the
//! relay's listener for every connection to a loopback address, and is gone with the relay.

mod serve;
mod steering;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::Context;

use crate::network::Namespace;
use crate::state::AGENT_SOCKET;
use crate::sys::descriptors;

pub use serve::Forwarder;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use serve::greet;

/// What a relay needs to forward.
#[derive(Debug)]
pub struct PortForward {
    /// For IPv4 and, where the host has it, IPv6.
    listeners: Vec<TcpListener>,
    /// The listeners get every connection to a loopback address while this is open.
    steering: OwnedFd,
    /// The agent's socket, as a file that can only be connected to.
    agent: OwnedFd,
}

impl PortForward {
    /// Listens in the network namespace at `path` for a sandbox whose VMM has been started and has its sockets in `folder`.
    ///
    /// # Errors
    /// Mostly where the host's kernel is older than 5.9 or the caller may not load programs into it.
    pub fn prepare(path: &Path, folder: BorrowedFd<'_>) -> anyhow::Result<Self> {
        let prepare = || -> anyhow::Result<Self> {
            let agent = descriptors::open_socket(folder, AGENT_SOCKET)?;
            let namespace = Namespace::open(path)?;
            let listeners = namespace.within(|| listeners().context("listen in it"))?;
            let steering = steering::steer(namespace.as_fd(), &listeners)?;
            Ok(Self { listeners, steering, agent })
        };
        prepare().with_context(|| {
            format!(
                "connections to localhost in the network namespace {} (kubectl port-forward) will not reach the pod",
                path.display()
            )
        })
    }

    /// The same, in a process that was cloned from this one and has descriptors of its own.
    pub fn adopt(&self, adopt: impl Fn(BorrowedFd<'_>) -> OwnedFd) -> Self {
        Self {
            listeners: self.listeners.iter().map(|listener| adopt(listener.as_fd()).into()).collect(),
            steering: adopt(self.steering.as_fd()),
            agent: adopt(self.agent.as_fd()),
        }
    }

    /// The descriptors of it.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd).chain([self.steering.as_fd(), self.agent.as_fd()])
    }
}

/// A listener for each family in the calling thread's network namespace: a socket is where it was made.
fn listeners() -> io::Result<Vec<TcpListener>> {
    let on = |address: SocketAddr| -> io::Result<TcpListener> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let first = on((Ipv4Addr::LOCALHOST, 0).into())?;
    // A host without IPv6 has no ::1 that anybody could dial.
    Ok([first].into_iter().chain(on((Ipv6Addr::LOCALHOST, 0).into()).ok()).collect())
}
