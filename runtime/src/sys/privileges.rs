//! Giving up privileges for good.

use nix::errno::Errno;
use stockade_sys::capabilities::{self, Sets};

/// Takes all capabilities but these from the calling thread, for good: executing a program does not give them back. Its
/// inheritable and ambient sets become empty.
///
/// # Errors
/// Those of capset(2) and prctl(2).
pub fn keep_only(capabilities: u64) -> Result<(), Errno> {
    capabilities::forbid_new_privileges()?;
    capabilities::clear_ambient()?;
    match capabilities::bound(capabilities) {
        // The caller lacks CAP_SETPCAP, so the bounding set stays. It would only matter for programs that are executed,
        // and there are none.
        Err(Errno::EPERM) => {}
        bounded => bounded?,
    }
    Sets { effective: capabilities, permitted: capabilities, inheritable: 0 }.set()
}
