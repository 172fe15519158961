//! `process.ioPriority`, by ioprio_set(2).

use nix::errno::Errno;

use crate::error::{Context, Result};

/// `IOPRIO_WHO_PGRP` of linux/ioprio.h.
const PROCESS_GROUP: libc::c_int = 2;

/// Gives the calling process's group this class and level.
pub fn apply(priority: Option<u16>) -> Result<()> {
    let Some(priority) = priority else { return Ok(()) };
    // SAFETY: the call takes numbers only.
    let result =
        unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS_GROUP, 0, libc::c_int::from(priority)) };
    Errno::result(result).map(drop).or_spec(|| "process.ioPriority".to_owned())
}
