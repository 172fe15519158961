//! `Request::State`.

use stockade_protocol::agent::{ContainerState, Response};

use super::Server;
use crate::{
    error::{ErrorKind, Result, error},
    process::Phase,
};

impl Server {
    /// The state of a container.
    pub(super) fn state(&mut self, id: &str) -> Result<Response> {
        let frozen = self.container(id)?.frozen;
        let state = match self.phase(id)? {
            Phase::Creating(_) => {
                return Err(error(ErrorKind::WrongState, format!("container {id} is still being created")));
            }
            Phase::Created | Phase::Running if frozen => ContainerState::Paused,
            Phase::Created | Phase::Starting(_) => ContainerState::Created,
            Phase::Running => ContainerState::Running,
            Phase::Stopped(status) => ContainerState::Stopped(status),
        };
        Ok(Response::State(state))
    }
}
