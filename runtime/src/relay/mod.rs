//! The relay: the host's stand-in for a process in the guest, and the PID that callers know.
//!
//! ```text
//!  create                               relay
//!    │ clone3: pid, mount, ipc, uts (net) namespaces, the container's cgroup
//!    ├────────────────────────────────────→│ session, mounts, clones of the host's trees
//!    │←──────────── trees, PREPARED ───────┤ root is the bundle's rootfs
//!    ├──── connections to the agent ──────→│ copies stdio, passes signals on
//!    │ state, pid file                     │
//!    ├──── COMMIT ────────────────────────→│ from now on it lives without its creator
//!    └ exits                               │ … exits with the container's status
//! ```
//!
//! If its creator dies before COMMIT, the relay ends, and with it the lease that the VMM lives by: nothing is left
//! running. `run` in the foreground never commits.

mod copy;
mod last_words;
mod launch;
mod serve;
mod stand_in;

pub use launch::{Plan, Relay};
