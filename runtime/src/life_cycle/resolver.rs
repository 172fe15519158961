//! Docker's resolver, which is at 127.0.0.11 in the network namespace on the host, where packet filters redirect to the
//! port on which it listens: containers ask it at the same address of the guest.
//!
//! ```text
//!  container ── 127.0.0.11:53 ──▶ agent ── vsock ──▶ watcher of the network namespace ──▶ 127.0.0.11:53
//! ```
//!
//! Its answers are meant for the containers of this namespace anyway, so nothing is disclosed.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt::SendTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};
use stockade_protocol::agent::{Hello, Purpose};

use crate::network::Namespace;
use crate::relay::clients::{Clients, announce, client};
use crate::relay::proxy::{STACK, Semaphore};
use crate::sys::descriptors;
use crate::vm::AGENT_SOCKET;

/// The resolver's address.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The port of domain names.
pub(super) const PORT: u16 = 53;

/// Largest number of queries of one pod at a time; further ones wait.
const MAX_QUERIES: usize = 64;

/// Time limit for a connection to a listener of the same machine, in seconds.
const CONNECTS_WITHIN_S: i64 = 2;

/// Where the namespace has a resolver, the connection to the agent that waits for the first query: it is there before the
/// container asks.
pub(super) fn offer(namespace: &Namespace, directory: BorrowedFd<'_>) -> Option<UnixStream> {
    namespace.within(|| Ok(dial()?)).ok()?;
    let agent = descriptors::connect(directory, AGENT_SOCKET);
    agent.and_then(|agent| announce(agent, &hello())).inspect_err(not_offered).ok()
}

/// Starts a thread that passes queries on, at first the one for which `waiting` waits. The calling process must be in
/// the namespace.
pub(super) fn serve(directory: BorrowedFd<'_>, waiting: UnixStream) -> io::Result<()> {
    let directory = directory.try_clone_to_owned()?;
    let serve = move || {
        let semaphore = Semaphore::new(MAX_QUERIES);
        let agent = || descriptors::connect(directory.as_fd(), AGENT_SOCKET);
        let clients = Clients { hello: hello(), agent, service: dial, semaphore: &semaphore };
        match client(waiting) {
            Ok(guest) => clients.connect(guest),
            // The agent of an older release has no resolver.
            Err(_) => return,
        }
        // Without a VM there is nobody to serve.
        let _ = clients.serve();
    };
    thread::Builder::new().name("resolver".into()).stack_size(STACK).spawn(serve).map(drop)
}

fn hello() -> Hello {
    Hello::newest(Purpose::Resolver)
}

fn not_offered(cause: &io::Error) {
    tracing::warn!("the container cannot reach Docker's resolver at {ADDRESS}: {cause}");
}

/// Connects to the resolver.
fn dial() -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // connect(2) waits as long as a write may.
    setsockopt(&socket, SendTimeout, &TimeVal::seconds(CONNECTS_WITHIN_S))?;
    let [a, b, c, d] = ADDRESS.octets();
    connect(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, PORT))?;
    setsockopt(&socket, SendTimeout, &TimeVal::seconds(0))?;
    Ok(socket)
}
