//! `process.ioPriority`, by ioprio_set(2).

use nix::{errno::Errno, unistd::Pid};

use crate::error::{Context, Result};

/// `IOPRIO_WHO_PROCESS` of linux/ioprio.h.
const PROCESS: libc::c_int = 1;

/// Gives a process this class and level; what it executes and forks inherits that. 0 is the calling process.
pub fn apply(pid: Pid, priority: Option<u16>) -> Result<()> {
    let Some(priority) = priority else { return Ok(()) };
    // SAFETY: the call takes numbers only.
    let result =
        unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, pid.as_raw(), libc::c_int::from(priority)) };
    Errno::result(result).map(drop).or_spec(|| "process.ioPriority".to_owned())
}
