//! What a relay offers besides its process.
//!
//! ```text
//!  create              relay, before it is confined     relay, in its loop
//!  prepare ──clone──→  adopt ────────────────────────→  start, then advance whenever something can be read
//! ```
//!
//! A service is one file that implements both traits, and one line in the list of `create`.

use std::fmt::Debug;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use crate::state::Record;
use crate::sys::own_proc::OwnProc;

/// A container whose relay is to offer services.
#[derive(Debug)]
pub struct Served<'a> {
    /// The container's record.
    pub record: &'a Record,
    /// The directory with the sockets of its VM.
    pub directory: BorrowedFd<'a>,
    /// Whether it has a VM of its own, whose lease its relay holds.
    pub has_lease: bool,
    /// The network namespace that an engine has made, if the container is the sandbox of a pod.
    pub pod_network: Option<&'a Path>,
    /// Sockets of the host that it is connected to, by their numbers.
    pub sockets: &'a [OwnedFd],
}

/// A function that makes a service for a container; `None` if the container does not need it.
pub type Prepare = for<'a> fn(&Served<'a>) -> anyhow::Result<Option<Box<dyn Service + 'a>>>;

/// A function that takes over a descriptor of the creator, in a process that was cloned from it and has its own copy.
pub type Adopt = fn(BorrowedFd<'_>) -> OwnedFd;

/// A service that a relay is to have, as its creator prepares it.
pub trait Service: Debug {
    /// Its name, for errors.
    fn name(&self) -> &'static str;

    /// The descriptors that the relay keeps for it.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// Whether the relay needs a procfs for it even if the root file system has no directory for one.
    fn needs_proc(&self) -> bool {
        false
    }

    /// Makes the running service in the relay, which can still open files. Each descriptor is adopted once.
    ///
    /// # Errors
    /// Why the service cannot run.
    fn adopt(&self, adopt: Adopt, proc: OwnProc) -> io::Result<Box<dyn Running>>;
}

/// A service in its relay. Work that takes time is done by threads of its own, because the relay has to attend to its
/// process.
pub trait Running: Debug {
    /// Begins; it is called when the agent knows the container.
    fn start(&mut self) {}

    /// The descriptors to watch until they are readable.
    fn polled(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// Goes on, because the descriptor with this index of [`polled`](Self::polled) is readable.
    fn advance(&mut self, _index: usize) {}
}
