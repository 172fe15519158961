//! `Request::Signal`.

use nix::errno::Errno;
use stockade_protocol::agent::Response;

use super::Server;
use crate::error::{Context, ErrorKind, Result, error};

impl Server {
    /// Signals a container's init, or every process in its cgroup.
    pub(super) fn signal(&mut self, id: &str, signal: i32, all: bool) -> Result<Response> {
        let container = self.containers.get(id).ok_or_else(|| {
            error(ErrorKind::NotFound, format!("container {id} does not exist in the guest"))
        })?;
        let no_process = || error(ErrorKind::NoProcess, format!("container {id} is not running"));
        if all {
            let count = if signal == libc::SIGKILL {
                let count = container.cgroup.signal(0)?;
                // In one step, so that no fork gets away.
                container.cgroup.kill()?;
                count
            } else {
                container.cgroup.signal(signal)?
            };
            return if count == 0 { Err(no_process()) } else { Ok(Response::Signalled) };
        }
        let process = self.processes.get(&container.init).filter(|process| process.exit().is_none());
        let process = process.ok_or_else(no_process)?;
        match crate::signal::send(process.pid, signal) {
            Err(Errno::ESRCH) => Err(no_process()),
            sent => sent
                .map(|()| Response::Signalled)
                .or_spec(|| format!("send signal {signal} to container {id}")),
        }
    }
}
