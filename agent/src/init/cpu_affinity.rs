//! `process.execCPUAffinity`, by sched_setaffinity(2): the CPUs on which an exec begins, and those on which its program
//! runs.

use nix::errno::Errno;
use stockade_protocol::container::Scheduling;

use crate::error::{ErrorKind, Result, error, reason};

/// Every CPU that the guest may ever have: the kernel uses those that exist and that the cgroup allows.
const EVERY_CPU: [u64; 16] = [u64::MAX; 16];

/// Sets the CPUs for the first steps.
pub fn begin(scheduling: &Scheduling) -> Result<()> {
    set(&scheduling.initial_cpus, "initial")
}

/// Sets the CPUs for the program: the given ones, or else the container's.
pub fn finish(scheduling: &Scheduling) -> Result<()> {
    let cpus = match &scheduling.final_cpus[..] {
        [] if !scheduling.initial_cpus.is_empty() => &EVERY_CPU[..],
        cpus => cpus,
    };
    set(cpus, "final")
}

fn set(cpus: &[u64], name: &str) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    // SAFETY: the kernel only reads the words, as many bytes as it is told.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(cpus), cpus.as_ptr()) };
    Errno::result(result).map(drop).map_err(|errno| {
        let cause = match errno {
            Errno::EINVAL => "the container's VM has none of these CPUs".to_owned(),
            errno => reason(errno),
        };
        error(ErrorKind::Spec, format!("process.execCPUAffinity.{name}: {cause}"))
    })
}
