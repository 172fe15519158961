//! What containers use: their VMs by the host's figures, and the containers by their guests' figures.

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use stockade_protocol::agent::{ContainerState, Purpose};

use crate::state::{Directory, Record};
use crate::stats::CgroupFiles;
use crate::sys::deadline::Deadline;
use crate::sys::process::{ProcessRef, ProcessUsage};
use crate::vm::agent::{AnswerDeadline, ClientError, Connection, call};

/// How long an agent may take to answer before its container's columns stay empty.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// What one container uses at one moment.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Its ID.
    pub id: String,
    /// Its status by its agent; `unreachable` if the agent does not answer.
    pub status: &'static str,
    /// The usage of its VM, if the VM is its own.
    pub vm: Option<ProcessUsage>,
    /// The usage of the container's processes.
    pub container: Option<ContainerUsage>,
}

/// The usage of a container's processes, by its cgroup in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerUsage {
    /// The time for which it has been counted.
    pub age: Duration,
    /// CPU time.
    pub cpu: Duration,
    /// Memory, in bytes.
    pub memory: u64,
    /// Memory limit, in bytes.
    pub limit: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
}

impl Usage {
    /// What a container uses now; `None` if it has ended.
    pub fn measure(directory: &Directory, record: &Record) -> Option<Self> {
        record.relay.filter(|relay| record.complete && relay.is_alive())?;
        let asked = ask(directory, record);
        let (status, container) = match asked {
            Ok((ContainerState::Stopped(_), _)) => return None,
            Ok((state, files)) => (name(state), Some(ContainerUsage::new(&files, age(record)))),
            Err(error) => {
                tracing::debug!("container {}: {error}", record.id);
                ("unreachable", None)
            }
        };
        let usage = |process: Option<ProcessRef>| process.as_ref().and_then(ProcessRef::usage);
        let files = usage(record.files);
        let vm = usage(record.vmm).map(|vm| files.map_or(vm, |files| vm.with(files)));
        Some(Self { id: record.id.clone(), status, vm, container })
    }

    /// Share of one CPU that the VM has used since `before`, or since it was started, in percent.
    pub fn vm_cpu(&self, before: Option<&Self>) -> Option<f64> {
        let before = before.and_then(|usage| usage.vm).map(|vm| (vm.cpu, vm.age));
        self.vm.map(|vm| percent((vm.cpu, vm.age), before))
    }

    /// Share of one CPU that the container has used, likewise.
    pub fn container_cpu(&self, before: Option<&Self>) -> Option<f64> {
        let before = before.and_then(|usage| usage.container).map(|usage| (usage.cpu, usage.age));
        self.container.map(|usage| percent((usage.cpu, usage.age), before))
    }

    /// Bytes that the VM has read and written per second since `before`, or since it was started.
    pub fn vm_io(&self, before: Option<&Self>) -> Option<[u64; 2]> {
        let vm = self.vm?;
        let before = before.and_then(|usage| usage.vm).filter(|before| before.age < vm.age);
        let (io, age) = before.map_or(([0, 0], Duration::ZERO), |before| (before.io, before.age));
        let seconds = (vm.age - age).as_secs_f64().max(f64::EPSILON);
        Some([0, 1].map(|index| (vm.io[index].saturating_sub(io[index]) as f64 / seconds) as u64))
    }
}

impl ContainerUsage {
    fn new(files: &CgroupFiles, age: Duration) -> Self {
        Self {
            age,
            cpu: Duration::from_micros(files.of("cpu.stat", "usage_usec")),
            memory: files.number("memory.current").unwrap_or(0),
            limit: files.number("memory.max"),
            pids: files.number("pids.current").unwrap_or(0),
        }
    }
}

fn ask(directory: &Directory, record: &Record) -> Result<(ContainerState, CgroupFiles), ClientError> {
    let mut wait = AnswerDeadline::new(directory.as_fd(), Deadline::within(ANSWERS_WITHIN));
    let mut control = Connection::open(directory.as_fd(), Purpose::Control, &mut wait)?;
    let state = control.call(call::State(record.id.clone()), &mut wait)?;
    let files = control.call(call::CgroupFiles(record.id.clone()), &mut wait)?;
    Ok((state, CgroupFiles::new(files)))
}

fn name(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Paused => "paused",
        ContainerState::Stopped(_) => "stopped",
    }
}

/// Time since the container was created.
fn age(record: &Record) -> Duration {
    let created = humantime::parse_rfc3339(&record.created).unwrap_or_else(|_| SystemTime::now());
    created.elapsed().unwrap_or_default()
}

/// CPU time divided by time, in percent.
fn percent((cpu, age): (Duration, Duration), before: Option<(Duration, Duration)>) -> f64 {
    let (cpu_before, age_before) =
        before.filter(|before| before.1 < age).unwrap_or((Duration::ZERO, Duration::ZERO));
    let time = (age - age_before).as_secs_f64().max(f64::EPSILON);
    100.0 * cpu.saturating_sub(cpu_before).as_secs_f64() / time
}

#[cfg(test)]
#[path = "usage_test.rs"]
mod tests;
