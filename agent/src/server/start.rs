//! `Request::Start`: lets a container's init execute its program.

use std::{os::fd::AsRawFd, rc::Rc};

use nix::sys::socket::{MsgFlags, send};
use stockade_protocol::agent::{ProcessId, Response};

use super::Server;
use crate::{
    container::Phase,
    error::{Context, ErrorKind, Result, error},
    init::Report,
    poller::Token,
};

impl Server {
    /// Begins to start a created container.
    pub(super) fn start(&mut self, reply_to: Token, id: &str) -> Result<Option<Response>> {
        let container = self.container(id)?;
        if container.frozen || container.freezing.is_some() {
            return Err(error(ErrorKind::WrongState, format!("container {id} is paused")));
        }
        let (Phase::Created, Some(channel), None) = (container.phase, &container.channel, &container.removal)
        else {
            return Err(error(
                ErrorKind::WrongState,
                format!("container {id} is not in the state \"created\""),
            ));
        };
        send(channel.socket.as_raw_fd(), &[0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
            .or_internal(|| format!("release the init of container {id}"))?;
        container.phase = Phase::Starting(reply_to);
        let init = container.init.clone();
        self.settle_streams(&init);
        Ok(None)
    }

    fn settle_streams(&mut self, init: &Rc<ProcessId>) {
        let Some(process) = self.processes.get_mut(init) else { return };
        for stream in process.stdio.settle() {
            self.watch_stream(init, stream);
        }
    }

    /// The init has executed its program, or could not.
    pub(super) fn finish_start(&mut self, id: &Rc<ProcessId>, reply_to: Token, report: Report) {
        let Some(container) = self.containers.get_mut(&id.container) else { return };
        let response = match report {
            Report::Failed(error) => {
                // It ends by itself; until it is reaped the container is as it was.
                container.phase = Phase::Created;
                Response::Error(error)
            }
            // execve closes the channel.
            _ => {
                container.phase = Phase::Running;
                Response::Started
            }
        };
        self.respond(reply_to, response);
    }
}
