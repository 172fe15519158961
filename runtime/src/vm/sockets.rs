//! The sockets of a VM, in its container's folder.

/// The socket to the agent.
pub const AGENT_SOCKET: &str = "agent.sock";
/// The socket to the VMM.
pub const CONTROL_SOCKET: &str = "vmm.sock";
/// The socket to the VM's file server.
pub const FILES_SOCKET: &str = "files.sock";
