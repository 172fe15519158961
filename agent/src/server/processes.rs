//! Streams and ends of processes.

use std::rc::Rc;

use nix::unistd::Pid;
use stockade_protocol::agent::{ExitStatus, ProcessEvent, ProcessId, Stream};

use super::{Server, Target};
use crate::{
    error::{ErrorKind, Result, error},
    poller::Token,
    process::{Phase, Process},
    reaper,
};

impl Server {
    /// Looks a process up.
    pub(super) fn process(&mut self, id: &ProcessId) -> Result<(Rc<ProcessId>, &mut Process)> {
        let known = self.processes.get_key_value(id).map(|(id, _)| id.clone());
        match known.and_then(|id| self.processes.get_mut(&id).map(|process| (id, process))) {
            Some(found) => Ok(found),
            None => {
                let message = format!("container {} has no such process in the guest", id.container);
                Err(error(ErrorKind::NotFound, message))
            }
        }
    }

    /// Watches both sides of a stream that has just been attached or given up.
    pub(super) fn watch_stream(&mut self, id: &Rc<ProcessId>, stream: Stream) {
        let Some(process) = self.processes.get_mut(id) else { return };
        for descriptor in process.stdio.descriptors(stream) {
            match self.poller.add(&descriptor, |_| Target::Stream(id.clone(), stream)) {
                Ok(token) => process.watched.push(token),
                // There is no memory for a registration: the stream cannot work, and the host sees its end.
                Err(_) => process.stdio.close(),
            }
        }
        self.again.push(Target::Stream(id.clone(), stream));
    }

    /// Moves the bytes of a stream.
    pub(super) fn run_stream(&mut self, id: &Rc<ProcessId>, stream: Stream) {
        let Some(process) = self.processes.get_mut(id) else { return };
        if process.stdio.run(stream) {
            self.again.push(Target::Stream(id.clone(), stream));
        }
        self.report_exit(id);
        self.forget_if_left(id);
    }

    /// Reaps the processes that have ended.
    pub(super) fn reap(&mut self) {
        for (pid, status) in reaper::reap(&self.children) {
            let known =
                self.processes.iter().find(|(_, process)| process.pid == pid && process.exit().is_none());
            // The others are orphans of the containers.
            if let Some((id, _)) = known {
                let id = id.clone();
                self.end(&id, pid, status);
            }
        }
    }

    fn end(&mut self, id: &Rc<ProcessId>, pid: Pid, status: ExitStatus) {
        // Its last report, if it has not executed its program.
        self.hear(id);
        self.pass_notifications_on(id);
        // An exec that could not be made is forgotten.
        if let Some(process) = self.processes.get_mut(id) {
            debug_assert_eq!(process.pid, pid);
            process.phase = Phase::Stopped(status);
            let streams = process.stdio.end();
            self.again.extend(streams.into_iter().map(|stream| Target::Stream(id.clone(), stream)));
            if id.exec.is_none() {
                let name = &id.container;
                self.abort_freezing(name, || {
                    format!("container {name} is not running: it has ended meanwhile")
                });
                // This comes before the report of the end, after which the host no longer listens.
                self.report_oom(name);
            }
            self.report_exit(id);
            self.forget_if_left(id);
        }
        self.finish_removal(&id.container);
    }

    /// Tells the host how a process ended, once all of its output is out.
    pub(super) fn report_exit(&mut self, id: &Rc<ProcessId>) {
        let Some(process) = self.processes.get_mut(id) else { return };
        let (Some(status), Some(token)) = (process.unreported_exit(), process.connection) else { return };
        // After the report of the last end, the VM may end.
        let container = self.containers.get(&id.container).filter(|_| id.exec.is_none());
        if container.is_some_and(|container| container.disks.outlive_it)
            && !self.disks_are_free(&id.container)
        {
            return;
        }
        let Some(process) = self.processes.get_mut(id) else { return };
        process.reported = true;
        let held = process.stdio.held();
        if let Some(connection) = self.connections.get_mut(&token) {
            let held = held.into_iter().map(|(stream, sent)| ProcessEvent::Held { stream, sent });
            for event in held.chain([ProcessEvent::Ended(status)]) {
                // A connection that cannot be written to reports its end to the loop.
                let _ = connection.send(&event);
            }
        }
    }

    /// Kills the processes that must not outlive this connection, because the host has closed it.
    pub(super) fn abandon(&mut self, connection: Token) {
        let held = self.processes.iter().filter(|(_, process)| process.is_held_by(connection));
        let held: Vec<Rc<ProcessId>> = held.map(|(id, _)| id.clone()).collect();
        for id in held {
            let Some(process) = self.processes.get_mut(&id) else { continue };
            (process.requester, process.connection) = (None, None);
            // If the host was told that streams are held, another relay goes on reading.
            if !process.reported {
                process.stdio.close();
            }
            if process.exit().is_some() {
                self.forget_if_left(&id);
            } else if id.exec.is_some() {
                // The process may end before the signal arrives.
                let _ = crate::signal::send(process.pid, libc::SIGKILL);
            } else if let Some(container) = self.containers.get(&id.container)
                && let Err(error) = container.cgroup.kill()
            {
                eprintln!("stockade-agent: {}", error.message);
            }
        }
    }

    /// Forgets an exec that has ended, if nobody has its streams open and the host needs it no more.
    fn forget_if_left(&mut self, id: &Rc<ProcessId>) {
        let is_left = |process: &Process| {
            let is_held = process.requester.is_some() || process.connection.is_some();
            process.exit().is_some() && !is_held && process.stdio.is_over()
        };
        if id.exec.is_some() && self.processes.get(id).is_some_and(is_left) {
            self.forget_process(id);
        }
    }

    /// Forgets a process and closes its streams.
    pub(super) fn forget_process(&mut self, id: &Rc<ProcessId>) -> Option<Process> {
        let mut process = self.processes.remove(id)?;
        process.stdio.close();
        let channel = process.channel.as_ref().map(|channel| channel.token);
        process.watched.iter().copied().chain(channel).for_each(|token| self.poller.forget(token));
        Some(process)
    }
}
