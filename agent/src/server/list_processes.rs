//! `Request::Processes`.

use std::collections::BTreeMap;

use stockade_protocol::agent::{MAX_PROCESSES, ProcessEntry, Response};

use super::Server;
use crate::{
    error::{ErrorKind, Result, error},
    procfs::{self, ProcInfo},
};

impl Server {
    /// The processes in a container's cgroup, with their PIDs in the container's own PID namespace.
    pub(super) fn list_processes(&mut self, id: &str) -> Result<Response> {
        let container = self.container(id)?;
        let init = container.init.clone();
        let pids = container.cgroup.processes()?;
        let init_pid = self.processes.get(&init).filter(|init| init.exit().is_none()).map(|init| init.pid);
        let Some(init_pid) = init_pid else {
            return Err(error(ErrorKind::NoProcess, format!("container {id} is not running")));
        };
        // A container without a PID namespace of its own has the guest's PIDs.
        let depth = procfs::pids_of(init_pid.as_raw() as u32).len().saturating_sub(1);

        let infos: BTreeMap<i32, ProcInfo> = pids
            .into_iter()
            .filter_map(|pid| Some((pid, ProcInfo::read(pid)?)))
            .take(MAX_PROCESSES)
            .collect();
        let known: BTreeMap<i32, _> = self
            .processes
            .iter()
            .filter(|(name, process)| name.container == id && process.exit().is_none())
            .map(|(name, process)| (process.pid.as_raw(), name))
            .collect();
        let boot_time_s = procfs::boot_time_s();
        let entries = infos.iter().filter_map(|(pid, info)| {
            let parent = match infos.get(&(info.parent as i32)) {
                Some(parent) => parent.pid_at(depth),
                None => procfs::pids_of(info.parent).get(depth).copied(),
            };
            Some(ProcessEntry {
                id: known.get(pid).map(|name| name.as_ref().clone()),
                // A process in this cgroup may be in another namespace: then it has no PID here.
                pid: info.pid_at(depth)?,
                parent: parent.unwrap_or(0),
                uid: info.uid,
                terminal: info.terminal.clone(),
                started: info.started(boot_time_s),
                cpu_ms: info.cpu_ms(),
                command: info.command.clone(),
            })
        });
        Ok(Response::Processes(entries.collect()))
    }
}
