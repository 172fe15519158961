//! `process.scheduler`, by sched_setattr(2).

use nix::{errno::Errno, unistd::Pid};
use stockade_protocol::container::Scheduler;

use crate::error::{AgentError, Context, ErrorKind, Result, error};

/// `struct sched_attr` of linux/sched/types.h, in its second size: with the first, flags of utilisation clamping are
/// invalid in any kernel.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    least_utilisation: u32,
    most_utilisation: u32,
}

/// Gives a process this scheduling, which what it executes and forks inherits. 0 is the calling process.
pub fn apply(pid: Pid, scheduler: Option<&Scheduler>) -> Result<()> {
    let Some(scheduler) = scheduler else { return Ok(()) };
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: scheduler.policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime_ns,
        deadline: scheduler.deadline_ns,
        period: scheduler.period_ns,
        // config.json has no values for these fields.
        least_utilisation: 0,
        most_utilisation: 0,
    };
    // SAFETY: the kernel reads as many bytes of the structure as its first field says, and may write that field.
    match Errno::result(unsafe {
        libc::syscall(libc::SYS_sched_setattr, pid.as_raw(), &raw const attributes, 0)
    }) {
        Err(Errno::EOPNOTSUPP) => Err(lacking()),
        done => done.map(drop).or_spec(|| "process.scheduler".to_owned()),
    }
}

fn lacking() -> AgentError {
    error(
        ErrorKind::Spec,
        "process.scheduler.flags: the guest's kernel has no utilisation clamping (CONFIG_UCLAMP_TASK)",
    )
}
