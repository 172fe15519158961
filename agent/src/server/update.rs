//! `Request::Update`.

use stockade_protocol::agent::Response;

use super::Server;
use crate::{
    container::Phase,
    error::{ErrorKind, Result, error},
};

impl Server {
    /// Changes a container's limits.
    pub(super) fn update(&mut self, id: &str, values: &[(String, String)]) -> Result<Response> {
        let container = self.container(id)?;
        match container.phase {
            Phase::Stopped(_) => Err(error(ErrorKind::NoProcess, format!("container {id} is not running"))),
            _ if container.removal.is_some() => {
                Err(error(ErrorKind::WrongState, format!("container {id} is being deleted")))
            }
            _ => container.cgroup.update(values).map(|()| Response::Updated),
        }
    }
}
