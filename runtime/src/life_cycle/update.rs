//! Changing the limits of an existing container: on the host and in the guest, or, if one fails, on neither.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::resize::Sizing;
use super::{Handle, explain};
use crate::lower::{self, Limits};
use crate::oci::bundle::SpecError;
use crate::state::Record;
use crate::stats::CgroupFiles;
use crate::vm::agent::call;
use crate::vm::sizing::Demand;

/// Changes the limits that are given, and leaves the others as they are.
///
/// # Errors
/// A value that cannot be used, [`crate::state::ContainerError::NotRunning`], or why a cgroup did not take a value; the
/// limits are as they were then.
pub fn update(handle: &Handle, wanted: &LinuxResources) -> anyhow::Result<()> {
    let files = handle.ask(call::CgroupFiles(handle.id.to_string())).map_err(explain)?;
    let files = CgroupFiles::new(files);
    let wanted = completed(wanted, &files);
    let mut warnings = Vec::new();
    let limits = lower::limits(&wanted, &mut warnings)?;
    let checked = wanted.memory().and_then(|memory| memory.check_before_update()).unwrap_or(false);
    if handle.record.sandbox.is_some() {
        lower::warn_of_pod(&limits.host, &mut warnings);
    }
    check_memory(&limits, checked, &files)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));

    let former = handle.record.demand;
    let demand = demand(&limits, former);
    // If the demand does not change, the VM keeps its size.
    let mut sizing = match demand == former {
        true => None,
        false => Sizing::begin(&handle.directory, &handle.record)?,
    };
    let id = handle.id.as_str();
    if let Some(sizing) = &mut sizing {
        sizing.prepare(id, demand)?;
    }
    if let Err(error) = change(handle, limits) {
        if let Some(sizing) = sizing {
            sizing.take_back(id, former);
        }
        return Err(error);
    }
    if demand == former {
        return Ok(());
    }
    let record = sizing.and_then(|sizing| sizing.finish(id, demand)).unwrap_or_else(|| handle.record.clone());
    handle.directory.write(&Record { demand, ..record })
}

fn change(handle: &Handle, limits: Limits) -> anyhow::Result<()> {
    let cgroup = handle.record.cgroup.as_ref();
    let former = cgroup.map(|cgroup| cgroup.update(&limits.host.values)).transpose()?;
    handle.ask(call::Update(handle.id.to_string(), limits.guest)).map_err(|error| {
        if let (Some(cgroup), Some(former)) = (cgroup, &former) {
            cgroup.restore(former);
        }
        explain(error)
    })
}

/// The container's demand on its VM after the change: what is not given stays as it is.
fn demand(limits: &Limits, former: Demand) -> Demand {
    let is_given = |file: &str| limits.guest.iter().any(|(given, _)| given == file);
    Demand {
        memory: if is_given("memory.max") { limits.demand.memory } else { former.memory },
        cpus: if is_given("cpu.max") { limits.demand.cpus } else { former.cpus },
    }
}

/// Completes limits that belong together in one cgroup file or one condition, but may be given separately, from the
/// limits in force: quota and period, memory with and without swap.
fn completed(wanted: &LinuxResources, files: &CgroupFiles) -> LinuxResources {
    let mut completed = wanted.clone();
    if let Some(cpu) = wanted.cpu() {
        completed.set_cpu(Some(complete_cpu(cpu.clone(), files)));
    }
    if let Some(memory) = wanted.memory() {
        completed.set_memory(Some(complete_memory(*memory, files)));
    }
    completed
}

fn complete_cpu(mut cpu: LinuxCpu, files: &CgroupFiles) -> LinuxCpu {
    let given = (cpu.quota().is_some_and(|quota| quota != 0), cpu.period().is_some_and(|period| period != 0));
    let Some((quota, period)) = files.text("cpu.max").and_then(|text| text.split_once(' ')) else {
        return cpu;
    };
    match given {
        (true, false) => drop(cpu.set_period(period.parse().ok())),
        (false, true) => drop(cpu.set_quota(Some(quota.parse().unwrap_or(-1)))),
        _ => {}
    }
    cpu
}

fn complete_memory(mut memory: LinuxMemory, files: &CgroupFiles) -> LinuxMemory {
    let given = (memory.limit().filter(|limit| *limit != 0), memory.swap().filter(|swap| *swap != 0));
    match given {
        (None, Some(swap)) if swap > 0 => {
            let limit = files.number("memory.max").and_then(|limit| i64::try_from(limit).ok());
            memory.set_limit(limit);
        }
        // As runc: removing one limit removes both.
        (Some(-1), None) => drop(memory.set_swap(Some(-1))),
        _ => {}
    }
    memory
}

/// Refuses a limit that would kill the container, if `checkBeforeUpdate` asks for that.
fn check_memory(limits: &Limits, checked: bool, files: &CgroupFiles) -> Result<(), SpecError> {
    const PROPERTY: &str = "linux.resources.memory.limit";
    let Some(limit) = limits.demand.memory else { return Ok(()) };
    let used = files.number("memory.current").unwrap_or(0);
    if checked && used > limit {
        let problem = format!("{limit} bytes are less than the {used} that the container uses now");
        return Err(SpecError::new(PROPERTY, problem));
    }
    Ok(())
}

#[cfg(test)]
#[path = "update_test.rs"]
mod tests;
