//! The sockets of a VM, in its container's directory.

/// The socket to the agent.
pub const AGENT_SOCKET: &str = "agent.sock";
/// The socket to the VMM. Its name tells the version of the protocol that is spoken there.
pub const CONTROL_SOCKET: &str = "vmm-2.sock";

/// The socket to a VMM that 0.1 has started.
pub const CONTROL_SOCKET_OF_0_1: &str = "vmm.sock";

/// The socket to the VM's file server; it speaks the same version.
pub const FILES_SOCKET: &str = "files-2.sock";

/// The sockets by which a VM is reached. No VM has all of them.
pub const SOCKETS: [&str; 4] = [AGENT_SOCKET, CONTROL_SOCKET, FILES_SOCKET, CONTROL_SOCKET_OF_0_1];
