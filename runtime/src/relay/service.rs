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
    /// What is remembered of it.
    pub record: &'a Record,
    /// Where the sockets of its VM are.
    pub directory: BorrowedFd<'a>,
    /// It has a VM of its own, whose lease its relay holds.
    pub has_lease: bool,
    /// The network namespace that an engine has made, where it is the sandbox of a pod.
    pub pod_network: Option<&'a Path>,
    /// Sockets of the host that it is connected to, by their numbers.
    pub sockets: &'a [OwnedFd],
}

/// Makes a service for a container; `None` where that has none.
pub type Prepare = for<'a> fn(&Served<'a>) -> anyhow::Result<Option<Box<dyn Service + 'a>>>;

/// Takes over a descriptor of the creator's, in a process that was cloned from it and has its own copy.
pub type Adopt = fn(BorrowedFd<'_>) -> OwnedFd;

/// A service that a relay is to have, as its creator prepares it.
pub trait Service: Debug {
    /// Its name, for errors.
    fn name(&self) -> &'static str;

    /// The descriptors that the relay keeps for it.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// Whether the relay is to have a procfs for it where the root file system has no directory for one.
    fn needs_proc(&self) -> bool {
        false
    }

    /// The same in the relay, which can open files still. Each of the descriptors is adopted once.
    ///
    /// # Errors
    /// What it cannot have.
    fn adopt(&self, adopt: Adopt, proc: OwnProc) -> io::Result<Box<dyn Running>>;
}

/// A service in its relay. What takes time is done by threads of its own: the relay has a process to attend to.
pub trait Running: Debug {
    /// Begins, now that the agent knows the container.
    fn start(&mut self) {}

    /// What to watch: each is ready when it can be read.
    fn polled(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// Goes on, now that what is at this place of [`polled`](Self::polled) is ready.
    fn advance(&mut self, _index: usize) {}
}
