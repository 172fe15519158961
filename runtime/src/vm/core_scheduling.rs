//! Core scheduling: no thread of another VM runs on the same core at the same time, where the host has several threads a
//! core (Linux, Documentation/admin-guide/hw-vuln/core-scheduling.rst).

use std::io;

/// `PR_SCHED_CORE`, `PR_SCHED_CORE_CREATE` and `PR_SCHED_CORE_SCOPE_THREAD_GROUP` of linux/prctl.h.
const SCHED_CORE: libc::c_int = 62;
const CREATE: libc::c_ulong = 1;
const THREAD_GROUP: libc::c_ulong = 1;

/// Gives the calling process, and all that it will start, a cookie of its own. A host whose cores have one thread each
/// does not need this.
///
/// # Errors
/// The host's kernel has no core scheduling.
pub fn isolate() -> io::Result<()> {
    let (this, unused): (libc::c_ulong, libc::c_ulong) = (0, 0);
    // SAFETY: no pointers are passed.
    if unsafe { libc::prctl(SCHED_CORE, CREATE, this, THREAD_GROUP, unused) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        cause if cause.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        cause => Err(io::Error::other(format!(
            "core_scheduling is on in the configuration, but the host's kernel has none ({cause}): build it with \
             CONFIG_SCHED_CORE, or switch simultaneous multi-threading off and remove the key"
        ))),
    }
}
