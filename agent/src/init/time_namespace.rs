//! The time namespace and `linux.timeOffsets`.
//!
//! Clocks are set before a process is in the namespace: the init makes it for its children, and execve moves the init
//! itself there.

use nix::sched::unshare;
use stockade_protocol::container::{Container, Namespace};

use super::{namespaces::NEW_TIME, proc_files};
use crate::error::{Context, Result};

/// Makes the time namespace, if the container has a new one. The process must still own its files in /proc.
pub fn make(spec: &Container) -> Result<()> {
    if spec.namespaces.time != Namespace::New {
        return Ok(());
    }
    unshare(NEW_TIME).or_internal(|| "make a time namespace".to_owned())?;
    spec.time_offsets.iter().try_for_each(|offset| {
        let line = format!("{} {} {}", offset.clock, offset.seconds, offset.nanoseconds);
        proc_files::write("self/timens_offsets", &line)
            .or_spec(|| format!("set linux.timeOffsets (clock, seconds, nanoseconds) to {line:?}"))
    })
}
