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

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};

pub use serve::Forwarder;

/// Ports cannot be forwarded.
#[derive(Debug, thiserror::Error)]
#[error(
    "connections to localhost in the network namespace {} (kubectl port-forward) will not reach the pod: {what}: {cause}",
    path.display()
)]
pub struct Unavailable {
    path: PathBuf,
    what: &'static str,
    cause: io::Error,
}

/// What a relay needs to forward.
#[derive(Debug)]
pub struct PortForward {
    /// For IPv4 and, where the host has it, IPv6.
    listeners: Vec<TcpListener>,
    /// The listeners get every connection to a loopback address while this is open.
    steering: OwnedFd,
    /// Holds the agent's socket.
    folder: OwnedFd,
}

impl PortForward {
    /// Listens in the network namespace at `path` for a sandbox whose sockets are in `folder`.
    ///
    /// # Errors
    /// [`Unavailable`], mostly where the host's kernel is older than 5.9 or the caller may not load programs into it.
    pub fn prepare(path: &Path, folder: BorrowedFd<'_>) -> Result<Self, Unavailable> {
        let unavailable = |(what, cause)| Unavailable { path: path.to_owned(), what, cause };
        let folder = folder.try_clone_to_owned().map_err(|cause| unavailable(("descriptors", cause)))?;
        let namespace = File::open(path).map_err(|cause| unavailable(("open it", cause)))?;
        let listeners = listeners(&namespace).map_err(unavailable)?;
        let steering = steering::steer(namespace.as_fd(), &listeners).map_err(unavailable)?;
        Ok(Self { listeners, steering, folder })
    }

    /// The same, in a process that was cloned from this one and has descriptors of its own.
    pub fn adopt(&self, adopt: impl Fn(BorrowedFd<'_>) -> OwnedFd) -> Self {
        Self {
            listeners: self.listeners.iter().map(|listener| adopt(listener.as_fd()).into()).collect(),
            steering: adopt(self.steering.as_fd()),
            folder: adopt(self.folder.as_fd()),
        }
    }

    /// The descriptors of it.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd).chain([self.steering.as_fd(), self.folder.as_fd()])
    }
}

/// A listener for each family, in the namespace: a socket is where it was made.
fn listeners(namespace: &File) -> Result<Vec<TcpListener>, (&'static str, io::Error)> {
    let listen = || {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| ("enter it", errno.into()))?;
        let on = |address: SocketAddr| {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let first = on((Ipv4Addr::LOCALHOST, 0).into()).map_err(|cause| ("listen in it", cause))?;
        // A host without IPv6 has no ::1 that anybody could dial.
        Ok([first].into_iter().chain(on((Ipv6Addr::LOCALHOST, 0).into())).collect())
    };
    // A thread of its own: it does not come back from there.
    thread::scope(|scope| match scope.spawn(listen).join() {
        Ok(result) => result,
        Err(_) => Err(("enter it", io::Error::other("the thread in it has panicked"))),
    })
}
