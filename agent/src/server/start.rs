//! `Request::Start`: lets a created process execute its program.

use std::{os::fd::AsRawFd, rc::Rc};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, send},
};
use stockade_protocol::agent::{ProcessId, Response};

use super::Server;
use crate::{
    container::Container,
    error::{Context, ErrorKind, Result, error},
    init::Report,
    poller::Token,
    process::Phase,
};

impl Server {
    /// Begins to start a created process.
    pub(super) fn start(&mut self, reply_to: Token, id: &ProcessId) -> Result<Option<Response>> {
        if id.exec.is_none() {
            self.follow_memory();
        }
        let container = self.containers.get(&id.container);
        if id.exec.is_none() && container.is_some_and(Container::is_paused) {
            return Err(error(ErrorKind::WrongState, format!("container {} is paused", id.container)));
        }
        let is_going = container.is_some_and(|container| container.removal.is_some());
        let (id, process) = self.process(id)?;
        let (Phase::Created, Some(channel), false) = (process.phase, &process.channel, is_going) else {
            return Err(error(
                ErrorKind::WrongState,
                format!("{} is not in the state \"created\"", described(&id)),
            ));
        };
        match send(channel.socket.as_raw_fd(), &[0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            // The process has ended, but has not been reaped yet.
            Err(Errno::EPIPE | Errno::ECONNRESET) => {
                let message = format!("cannot start {}: it has been killed", described(&id));
                return Err(error(ErrorKind::WrongState, message));
            }
            sent => sent.or_internal(|| format!("release {}", described(&id)))?,
        };
        process.phase = Phase::Starting(reply_to);
        self.settle_streams(&id);
        Ok(None)
    }

    fn settle_streams(&mut self, id: &Rc<ProcessId>) {
        let Some(process) = self.processes.get_mut(id) else { return };
        for stream in process.stdio.settle() {
            self.watch_stream(id, stream);
        }
    }

    /// Answers Start: the process has executed its program, or could not.
    pub(super) fn finish_start(&mut self, id: &Rc<ProcessId>, reply_to: Token, report: Report) {
        let Some(process) = self.processes.get_mut(id) else { return };
        let response = match report {
            Report::Failed(error) => {
                // The process ends by itself; until it is reaped, its phase is as before.
                process.phase = Phase::Created;
                Response::Error(error)
            }
            // execve closes the channel.
            _ => {
                process.phase = Phase::Running;
                Response::Started
            }
        };
        self.respond(reply_to, response);
    }
}

fn described(id: &ProcessId) -> String {
    match id.exec {
        None => format!("container {}", id.container),
        Some(_) => format!("the process in container {}", id.container),
    }
}
