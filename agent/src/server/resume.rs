//! `Request::Resume`.

use stockade_protocol::agent::Response;

use super::Server;
use crate::{
    error::{ErrorKind, Result, error},
    poller::Token,
    process::Phase,
};

impl Server {
    /// Begins to thaw a paused container.
    pub(super) fn resume(&mut self, reply_to: Token, id: &str) -> Result<Option<Response>> {
        let phase = self.phase(id)?;
        let container = self.container(id)?;
        if let Phase::Stopped(_) = phase {
            return Err(error(ErrorKind::NoProcess, format!("container {id} is not running")));
        }
        if !container.frozen {
            return Err(error(ErrorKind::WrongState, format!("container {id} is not paused")));
        }
        self.begin_freezing(reply_to, id, false).map(|()| None)
    }
}
