//! `Request::Pause`.

use stockade_protocol::agent::Response;

use super::Server;
use crate::{
    error::{ErrorKind, Result, error},
    poller::Token,
    process::Phase,
};

impl Server {
    /// Begins to freeze a container; a container that waits for its start may be frozen too.
    pub(super) fn pause(&mut self, reply_to: Token, id: &str) -> Result<Option<Response>> {
        let phase = self.phase(id)?;
        let container = self.container(id)?;
        match phase {
            Phase::Created | Phase::Running if container.frozen => {
                return Err(error(ErrorKind::WrongState, format!("container {id} is paused already")));
            }
            Phase::Created | Phase::Running => {}
            Phase::Stopped(_) => {
                return Err(error(ErrorKind::NoProcess, format!("container {id} is not running")));
            }
            Phase::Creating(_) | Phase::Starting(_) => {
                let message = format!("container {id} is still being created or started");
                return Err(error(ErrorKind::WrongState, message));
            }
        }
        self.begin_freezing(reply_to, id, true).map(|()| None)
    }
}
