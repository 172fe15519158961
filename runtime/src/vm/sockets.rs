//! The sockets of a VM, in its container's directory.

use std::os::fd::BorrowedFd;

use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, faccessat};

/// The socket to the agent.
pub const AGENT_SOCKET: &str = "agent.sock";
/// The socket to the VMM. Its name tells the version of the protocol that is spoken there.
pub const CONTROL_SOCKET: &str = "vmm-2.sock";

/// The socket to a VMM that 0.1 has started.
pub const CONTROL_SOCKET_OF_0_1: &str = "vmm.sock";

/// The socket to the VM's file server; it speaks the same version.
pub const FILES_SOCKET: &str = "files-2.sock";

/// Whether the VM whose sockets are in this directory was started by 0.1, whose agent speaks version 1 only.
pub fn is_of_0_1(directory: BorrowedFd<'_>) -> bool {
    faccessat(directory, CONTROL_SOCKET_OF_0_1, AccessFlags::F_OK, AtFlags::empty()).is_ok()
}

/// The names of all sockets of VMs. No VM has all of them.
pub const SOCKETS: [&str; 4] = [AGENT_SOCKET, CONTROL_SOCKET, FILES_SOCKET, CONTROL_SOCKET_OF_0_1];
