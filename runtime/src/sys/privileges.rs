//! Giving up privileges for good.

use nix::errno::Errno;
use stockade_sys::capabilities::{self, Sets};

/// Leaves the calling thread no capability but these, which it may not get back, nor anything by executing a program. Its
/// inheritable and ambient sets are empty.
///
/// # Errors
/// Those of capset(2) and prctl(2).
pub fn keep_only(capabilities: u64) -> Result<(), Errno> {
    capabilities::forbid_new_privileges()?;
    capabilities::clear_ambient()?;
    match capabilities::bound(capabilities) {
        // It is a caller's without CAP_SETPCAP, and bounds what is executed, which is nothing.
        Err(Errno::EPERM) => {}
        bounded => bounded?,
    }
    Sets { effective: capabilities, permitted: capabilities, inheritable: 0 }.set()
}
