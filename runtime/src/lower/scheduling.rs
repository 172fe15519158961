//! `process.scheduler`, `process.ioPriority` and `process.execCPUAffinity`: names to the kernel's numbers.
//!
//! All apply in the guest: among its processes, on its CPUs and disks.

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxIOPriority, LinuxSchedulerFlag as Flag,
    LinuxSchedulerPolicy as Policy, Process, Scheduler as Spec,
};
use stockade_protocol::container::{Scheduler, Scheduling};

use super::number_list;
use crate::oci::bundle::SpecError;

/// The range of nice values.
const NICE: std::ops::RangeInclusive<i32> = -20..=19;

/// The range of static priorities for the real-time policies.
const REAL_TIME: std::ops::RangeInclusive<i32> = 1..=99;

/// The range of levels in an I/O class.
const LEVELS: std::ops::RangeInclusive<i64> = 0..=7;

/// How a process is scheduled.
///
/// # Errors
/// A value that its policy or class does not allow, or that no kernel accepts.
pub fn lower(process: &Process) -> Result<Scheduling, SpecError> {
    let (initial_cpus, final_cpus) =
        process.exec_cpu_affinity().as_ref().map(affinity).transpose()?.unwrap_or_default();
    Ok(Scheduling {
        scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
        io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
        initial_cpus,
        final_cpus,
    })
}

fn scheduler(given: &Spec) -> Result<Scheduler, SpecError> {
    let error =
        |name: &str, problem: String| Err(SpecError::new(format!("process.scheduler.{name}"), problem));
    let policy = match given.policy() {
        Policy::SchedOther => libc::SCHED_OTHER,
        Policy::SchedFifo => libc::SCHED_FIFO,
        Policy::SchedRr => libc::SCHED_RR,
        Policy::SchedBatch => libc::SCHED_BATCH,
        Policy::SchedIdle => libc::SCHED_IDLE,
        Policy::SchedDeadline => libc::SCHED_DEADLINE,
        Policy::SchedIso => {
            return error("policy", "Linux does not implement SCHED_ISO".to_owned());
        }
    };
    let policy_name = given.policy();
    let nice = given.nice().unwrap_or(0);
    if !NICE.contains(&nice) {
        return error("nice", format!("{nice} is not between -20 and 19"));
    }
    let priority = given.priority().unwrap_or(0);
    let is_real_time = matches!(policy_name, Policy::SchedFifo | Policy::SchedRr);
    if is_real_time && !REAL_TIME.contains(&priority) {
        return error("priority", format!("{priority} is not between 1 and 99, which {policy_name} needs"));
    }
    if !is_real_time && priority != 0 {
        return error(
            "priority",
            format!("{policy_name} has no priority; only SCHED_FIFO and SCHED_RR have one"),
        );
    }
    let times = [("runtime", given.runtime()), ("deadline", given.deadline()), ("period", given.period())];
    let [runtime_ns, deadline_ns, period_ns] = times.map(|(_, time)| time.unwrap_or(0));
    if *policy_name == Policy::SchedDeadline {
        // sched(7): runtime <= deadline <= period, where a period of 0 is the deadline.
        if runtime_ns == 0 || runtime_ns > deadline_ns {
            return error(
                "runtime",
                format!("{runtime_ns} is not between 1 and the deadline, {deadline_ns}"),
            );
        }
        if period_ns != 0 && deadline_ns > period_ns {
            return error("deadline", format!("{deadline_ns} is above the period, {period_ns}"));
        }
    } else if let Some((name, _)) = times.iter().find(|(_, time)| time.is_some_and(|time| time != 0)) {
        return error(name, format!("{policy_name} has no {name}; only SCHED_DEADLINE has one"));
    }
    let flags = given.flags().iter().flatten().fold(0, |flags, flag| flags | flag_bit(*flag));
    Ok(Scheduler {
        policy: policy as u32,
        flags,
        nice,
        priority: priority.unsigned_abs(),
        runtime_ns,
        deadline_ns,
        period_ns,
    })
}

/// linux/sched.h
fn flag_bit(flag: Flag) -> u64 {
    match flag {
        Flag::SchedResetOnFork => 0x01,
        Flag::SchedFlagReclaim => 0x02,
        Flag::SchedFlagDLOverrun => 0x04,
        Flag::SchedFlagKeepPolicy => 0x08,
        Flag::SchedFlagKeepParams => 0x10,
        Flag::SchedFlagUtilClampMin => 0x20,
        Flag::SchedFlagUtilClampMax => 0x40,
    }
}

/// linux/ioprio.h
fn io_priority(given: &LinuxIOPriority) -> Result<u16, SpecError> {
    const CLASS_SHIFT: u32 = 13;
    let class: u16 = match given.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = given.priority();
    match u16::try_from(level) {
        Ok(bits) if LEVELS.contains(&level) => Ok(class << CLASS_SHIFT | bits),
        _ => Err(SpecError::new("process.ioPriority.priority", format!("{level} is not between 0 and 7"))),
    }
}

/// The initial CPUs and the final ones.
fn affinity(given: &ExecCPUAffinity) -> Result<(Vec<u64>, Vec<u64>), SpecError> {
    let cpus = |list: &Option<String>, name: &str| match list.as_deref() {
        None | Some("") => Ok(Vec::new()),
        Some(list) => number_list::parse(list)
            .map_err(|problem| SpecError::new(format!("process.execCPUAffinity.{name}"), problem)),
    };
    Ok((cpus(given.initial(), "initial")?, cpus(given.cpu_affinity_final(), "final")?))
}

#[cfg(test)]
#[path = "scheduling_test.rs"]
mod tests;
