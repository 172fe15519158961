//! `Request::Resume`.

use stockade_protocol::agent::Response;

use super::Server;
use crate::{
    container::Phase,
    error::{ErrorKind, Result, error},
    poller::Token,
};

impl Server {
    /// Begins to thaw a paused container.
    pub(super) fn resume(&mut self, reply_to: Token, id: &str) -> Result<Option<Response>> {
        let container = self.container(id)?;
        if let Phase::Stopped(_) = container.phase {
            return Err(error(ErrorKind::NoProcess, format!("container {id} is not running")));
        }
        if !container.frozen {
            return Err(error(ErrorKind::WrongState, format!("container {id} is not paused")));
        }
        self.begin_freezing(reply_to, id, false).map(|()| None)
    }
}
