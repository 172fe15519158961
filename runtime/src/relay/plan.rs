//! What a relay is to be, as its creator says it.

use std::os::fd::BorrowedFd;

use super::namespaces::Namespaces;
use super::notify::NotifySocket;
use super::preserve_fds::Preserved;

/// What a relay is to be.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What callers find around it.
    pub namespaces: Namespaces<'a>,
    /// What `ps` shows.
    pub args: &'a [String],
    /// Its cgroup's directory.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The process has a terminal, so size changes are passed on.
    pub terminal: bool,
    /// The terminal to sit on; without it stdio is inherited.
    pub slave: Option<BorrowedFd<'a>>,
    /// Descriptors that it relays besides stdio.
    pub preserved: &'a Preserved,
    /// Where the container's notifications go.
    pub notify: Option<&'a NotifySocket>,
    /// Who goes on with its streams that outlive the process ([`super::held_streams`]).
    pub heir: Option<BorrowedFd<'a>>,
}
