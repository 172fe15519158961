//! The relay: what stands on the host for a process in the guest, and the PID that callers know.
//!
//! ```text
//!  create                               relay
//!    │ clone3: pid, mount, ipc, uts (net) namespaces, the container's cgroup
//!    ├────────────────────────────────────→│ session, namespaces
//!    │←──────────── ENTERED ───────────────┤ (only where there are hooks)
//!    │ prestart, createRuntime             │
//!    ├──────────── GO_ON ─────────────────→│ createContainer
//!    │                                     │ mounts, clones of the host's trees
//!    │←──────────── trees, PREPARED ───────┤ root is the bundle's rootfs
//!    ├──── connections to the agent ──────→│ copies stdio, passes signals on
//!    │ state, pid file                     │
//!    ├──── COMMIT ────────────────────────→│ from now on it lives without its creator
//!    └ exits                               │ … exits with the container's status
//! ```
//!
//! An exec's relay is the same, but it joins the namespaces and the cgroup of the container's relay and holds no lease:
//! it learns of the VM's death when its connections end.
//!
//! If its creator dies before COMMIT, the relay ends. Its process in the guest ends with it, and so does the VMM, which
//! lives by the relay's lease: nothing is left running. `run` and `exec` in the foreground never commit.

mod child;
pub mod clients;
mod console_log;
pub mod copy;
mod create_hooks;
mod error;
mod followed;
pub mod held_streams;
pub mod host_sockets;
mod launch;
mod messages;
mod mount_points;
mod namespaces;
pub mod notify;
mod pace;
mod plan;
pub mod port_forward;
pub mod preserve_fds;
pub mod proxy;
pub mod serve;
pub mod service;
mod view;
mod watch;

pub use create_hooks::CreateHooks;
pub use error::RelayError;
pub use launch::Relay;
pub use namespaces::{Namespaces, Own};
pub use notify::NotifySocket;
pub use plan::Plan;
