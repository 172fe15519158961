//! The plan of a relay, which its creator makes.

use std::os::fd::BorrowedFd;

use super::namespaces::Namespaces;
use super::notify::NotifySocket;
use super::preserve_fds::Preserved;

/// The plan of a relay.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Its namespaces and root, which callers look at.
    pub namespaces: Namespaces<'a>,
    /// The command line that `ps` shows.
    pub args: &'a [String],
    /// Its cgroup's directory.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether the process has a terminal: then the relay passes on changes of its size.
    pub terminal: bool,
    /// The terminal for its stdio; without it, stdio is inherited.
    pub slave: Option<BorrowedFd<'a>>,
    /// Descriptors that it relays besides stdio.
    pub preserved: &'a Preserved,
    /// The socket for the container's notifications.
    pub notify: Option<&'a NotifySocket>,
    /// The SELinux label that it takes on a host with SELinux.
    pub label: Option<&'a str>,
    /// The socket of the relay that takes over streams that outlive the process ([`super::held_streams`]).
    pub heir: Option<BorrowedFd<'a>>,
}
