//! `Request::State`.

use stockade_protocol::agent::{ContainerState, Response};

use super::Server;
use crate::{
    container::Phase,
    error::{ErrorKind, Result, error},
};

impl Server {
    /// How a container is.
    pub(super) fn state(&mut self, id: &str) -> Result<Response> {
        let container = self.container(id)?;
        let state = match container.phase {
            Phase::Creating(_) => {
                return Err(error(ErrorKind::WrongState, format!("container {id} is still being created")));
            }
            Phase::Created | Phase::Running if container.frozen => ContainerState::Paused,
            Phase::Created | Phase::Starting(_) => ContainerState::Created,
            Phase::Running => ContainerState::Running,
            Phase::Stopped(status) => ContainerState::Stopped(status),
        };
        Ok(Response::State(state))
    }
}
