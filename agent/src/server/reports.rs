//! What a process reports between its clone and its program: that it is set up and waits, or what failed.

use std::{os::fd::OwnedFd, rc::Rc};

use stockade_protocol::agent::{ProcessId, Response};

use super::{Server, Target};
use crate::{
    error::{AgentError, ErrorKind, Result, error},
    init::{self, Report, Setup, Spawned},
    poller::Token,
    process::{Channel, Phase, Process},
};

impl Server {
    /// Takes over a process that has been cloned; `reply_to` gets Created when it waits for its start.
    pub(super) fn adopt(&mut self, id: &Rc<ProcessId>, spawned: Spawned, reply_to: Token) {
        let Spawned { pid, stdio, channel } = spawned;
        let mut process = Process::new(pid, stdio, Phase::Creating(reply_to));
        let watched = self.poller.add(&channel, |_| Target::Report(id.clone()));
        let failure = match watched {
            Ok(token) => {
                process.channel = Some(Channel { socket: channel, token });
                None
            }
            // Its channel closes here, and so the process ends.
            Err(error) => Some(error),
        };
        self.processes.insert(id.clone(), process);
        if let Some(error) = failure {
            self.fail_creation(id, error);
        }
    }

    /// Reads the report of a process.
    pub(super) fn hear(&mut self, id: &Rc<ProcessId>) {
        let Some(process) = self.processes.get_mut(id) else { return };
        let Some(channel) = &process.channel else { return };
        let report = match init::hear(&channel.socket) {
            Report::None => return,
            report => report,
        };
        if !matches!(report, Report::Built(_))
            && let Some(channel) = process.channel.take()
        {
            self.poller.forget(channel.token);
        }
        match (process.phase, report) {
            (Phase::Creating(reply_to), Report::Built(made)) => self.finish_creation(id, reply_to, made),
            (Phase::Creating(_), Report::Failed(error)) => self.fail_creation(id, error),
            (Phase::Creating(_), Report::Closed) => {
                let message = match id.exec {
                    None => {
                        "the container's init was killed while it built the container, which happens when the \
                         container's memory limit is too small for that"
                    }
                    Some(_) => {
                        "the process was killed before its start, which happens when the container's memory limit \
                         is reached or the container ends"
                    }
                };
                self.fail_creation(id, error(ErrorKind::Internal, message));
            }
            (Phase::Starting(reply_to), report) => self.finish_start(id, reply_to, report),
            // The process was killed before its start.
            _ => {}
        }
    }

    fn finish_creation(&mut self, id: &Rc<ProcessId>, reply_to: Token, made: Setup) {
        let Setup { warnings, terminal, notify, .. } = made;
        let taken = self.take_terminal(id, terminal).and_then(|()| self.take_notify(id, notify));
        let finished = taken.and_then(|()| match id.exec {
            None => self.finish_container(&id.container),
            Some(_) => Ok(()),
        });
        if let Err(error) = finished {
            return self.fail_creation(id, error);
        }
        let Some(process) = self.processes.get_mut(id) else { return };
        process.phase = Phase::Created;
        let guest_pid = process.pid.as_raw() as u32;
        self.respond(reply_to, Response::Created { guest_pid, warnings });
    }

    fn take_terminal(&mut self, id: &Rc<ProcessId>, terminal: Option<OwnedFd>) -> Result<()> {
        if let (Some(process), Some(master)) = (self.processes.get_mut(id), terminal) {
            process.stdio.add_terminal(master)?;
        }
        Ok(())
    }

    fn take_notify(&mut self, id: &Rc<ProcessId>, notify: Option<OwnedFd>) -> Result<()> {
        if let (Some(process), Some(socket)) = (self.processes.get_mut(id), notify) {
            process.watched.push(self.poller.add(&socket, |_| Target::Notify(id.clone()))?);
            process.notify = Some(socket);
        }
        Ok(())
    }

    /// Removes a process that could not be set up, and its container if it is the init.
    fn fail_creation(&mut self, id: &Rc<ProcessId>, error: AgentError) {
        if id.exec.is_none() {
            return self.fail_container(id, error);
        }
        let Some(process) = self.processes.get(id) else { return };
        if let Phase::Creating(reply_to) = process.phase {
            // The process has ended by itself, or ends now.
            let _ = crate::signal::send(process.pid, libc::SIGKILL);
            self.forget_process(id);
            self.respond(reply_to, Response::Error(error));
        }
    }
}
