//! What a sandbox and its containers use, for Prometheus: in OpenMetrics' text form.
//!
//! `stockade metrics` prints it, and the sandbox's relay serves it on a socket while the sandbox lives ([`endpoint`]). Both
//! ask the VMM and the agent. The guest is hostile: its answers are bounded, no name of its choice is printed except
//! IDs of containers, and what it does not answer is left out.

mod endpoint;
mod exposition;

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use stockade_protocol::agent::Purpose;
use stockade_protocol::vmm::{DeviceFailure, Figures, ThreadTime};

use crate::oci::container_id::ContainerId;
use crate::state::Record;
use crate::stats::CgroupFiles;
use crate::sys::deadline::Deadline;
use crate::vm::agent::{AnswerDeadline, ClientError, Connection, call};
use crate::vm::{self, Control, Wait};

pub use endpoint::Metrics;
pub use exposition::text;

/// Largest text of all containers' cgroups together, in bytes. One container's text has about 15 KiB.
const MAX_TEXT: usize = 8 << 20;

/// The sandbox that the metrics are about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The sandbox's ID.
    pub id: String,
    /// When it was created.
    pub created: SystemTime,
}

impl Subject {
    /// The container of this record; `None` if it is in another's VM.
    pub fn of(record: &Record) -> Option<Self> {
        let created = humantime::parse_rfc3339(&record.created).unwrap_or(SystemTime::UNIX_EPOCH);
        record.sandbox.is_none().then(|| Self { id: record.id.clone(), created })
    }
}

/// The way to reach a sandbox.
pub trait Reach {
    /// A connection to the VMM's control socket.
    ///
    /// # Errors
    /// connect(2)'s.
    fn vmm(&self, deadline: Deadline) -> io::Result<Control>;

    /// A connection to the agent's socket.
    ///
    /// # Errors
    /// connect(2)'s.
    fn agent(&self) -> io::Result<UnixStream>;

    /// `/proc/net/dev` of the sandbox's network namespace.
    fn interfaces(&self) -> Option<String>;
}

/// What a sandbox uses at one moment.
#[derive(Debug)]
pub struct Sandbox {
    subject: Subject,
    stats: Option<Figures>,
    memory_mib: Option<u32>,
    threads: Vec<ThreadTime>,
    failures: Vec<DeviceFailure>,
    interfaces: String,
    containers: Option<Vec<(ContainerId, CgroupFiles)>>,
}

impl Sandbox {
    /// Measures a sandbox, as far as VMM and agent answer in time.
    pub fn measure(subject: Subject, reach: &impl Reach, within: Duration) -> Self {
        let deadline = Deadline::within(within);
        let vmm = reach.vmm(deadline);
        let mut stats = None;
        let mut memory_mib = None;
        let mut threads = Vec::new();
        let mut failures = Vec::new();
        if let Ok(mut control) = vmm {
            stats = control.call(vm::call::ReadFigures()).ok();
            memory_mib = control.call(vm::call::Memory()).ok();
            threads = control.call(vm::call::Threads()).unwrap_or_default();
            failures = control.call(vm::call::Failures()).unwrap_or_default();
        }
        let containers = containers(reach, &mut AnswerDeadline::without_reason(deadline));
        if let Err(error) = &containers {
            tracing::debug!("sandbox {}: {error}", subject.id);
        }
        let interfaces = reach.interfaces().unwrap_or_default();
        Self { subject, stats, memory_mib, threads, failures, interfaces, containers: containers.ok() }
    }
}

fn containers(
    reach: &impl Reach,
    wait: &mut impl Wait,
) -> Result<Vec<(ContainerId, CgroupFiles)>, ClientError> {
    let stream = reach.agent().map_err(ClientError::Connect)?;
    let mut control = Connection::greet(stream, Purpose::Control, wait)?;
    let (mut found, mut room) = (Vec::new(), MAX_TEXT);
    for name in control.call(call::Containers(), wait)? {
        // A name from the guest must be a valid ID of a container.
        let Ok(id) = name.parse::<ContainerId>() else { continue };
        match control.call(call::CgroupFiles(name), wait) {
            Ok(files) => {
                let length = files.iter().map(|(name, text)| name.len() + text.len()).sum();
                room = room.checked_sub(length).ok_or(ClientError::Unexpected)?;
                found.push((id, CgroupFiles::new(files)));
            }
            // The container has gone meanwhile.
            Err(ClientError::Agent(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

#[cfg(test)]
#[path = "metrics_test.rs"]
mod tests;
