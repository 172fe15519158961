//! `Request::Update`.

use stockade_protocol::agent::Response;

use super::Server;
use crate::{
    error::{ErrorKind, Result, error},
    process::Phase,
};

impl Server {
    /// Changes a container's limits.
    pub(super) fn update(&mut self, id: &str, values: &[(String, String)]) -> Result<Response> {
        // The runtime has made the VM grow before.
        self.follow_memory();
        let phase = self.phase(id)?;
        let container = self.container(id)?;
        match phase {
            Phase::Stopped(_) => Err(error(ErrorKind::NoProcess, format!("container {id} is not running"))),
            _ if container.removal.is_some() => {
                Err(error(ErrorKind::WrongState, format!("container {id} is being deleted")))
            }
            _ => container.cgroup.update(values).map(|()| Response::Updated),
        }
    }
}
