//! `Request::CgroupFiles`: the files are sent unchanged, and the host parses them, because it has to distrust them
//! anyway.

use stockade_protocol::agent::Response;

use super::Server;
use crate::error::Result;

/// The files with statistics. Which of them exist depends on the kernel and its controllers.
const FILES: [&str; 23] = [
    "cpu.stat",
    "cpu.max",
    "cpu.weight",
    "cpu.pressure",
    "cpuset.cpus.effective",
    "cpuset.mems.effective",
    "memory.current",
    "memory.stat",
    "memory.max",
    "memory.peak",
    "memory.events",
    "memory.low",
    "memory.high",
    "memory.swap.current",
    "memory.swap.max",
    "memory.swap.events",
    "memory.swap.peak",
    "memory.pressure",
    "pids.current",
    "pids.max",
    "pids.events",
    "io.stat",
    "io.pressure",
];

/// Largest size of all files together, in bytes: half of what the host accepts.
const MAX: usize = 128 << 10;

impl Server {
    /// Reads a container's cgroup.
    pub(super) fn cgroup_files(&mut self, id: &str) -> Result<Response> {
        let cgroup = &self.container(id)?.cgroup;
        let mut room = MAX;
        let mut files = Vec::new();
        for name in FILES.map(str::to_owned).into_iter().chain(cgroup.files("hugetlb.")) {
            let Some(text) = cgroup.read(&name) else { continue };
            match room.checked_sub(name.len() + text.len()) {
                Some(left) => room = left,
                None => break,
            }
            files.push((name, text));
        }
        Ok(Response::CgroupFiles(files))
    }
}
