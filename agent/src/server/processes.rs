//! Streams and ends of processes.

use std::rc::Rc;

use nix::unistd::Pid;
use stockade_protocol::agent::{ExitStatus, ProcessEvent, ProcessId, Stream};

use super::{Server, Target};
use crate::{
    container::Phase,
    error::{ErrorKind, Result, error},
    poller::Token,
    process::Process,
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
                // No memory for a registration: the stream cannot work, and the host sees it end.
                Err(_) => process.stdio.close(),
            }
        }
        self.again.push(Target::Stream(id.clone(), stream));
    }

    /// Moves what a stream has.
    pub(super) fn run_stream(&mut self, id: &Rc<ProcessId>, stream: Stream) {
        let Some(process) = self.processes.get_mut(id) else { return };
        if process.stdio.run(stream) {
            self.again.push(Target::Stream(id.clone(), stream));
        }
        self.report_exit(id);
    }

    /// Reaps what has ended.
    pub(super) fn reap(&mut self) {
        for (pid, status) in reaper::reap(&self.children) {
            let known =
                self.processes.iter().find(|(_, process)| process.pid == pid && process.exit.is_none());
            // The others are orphans of the containers.
            if let Some((id, _)) = known {
                let id = id.clone();
                self.end(&id, pid, status);
            }
        }
    }

    fn end(&mut self, id: &Rc<ProcessId>, pid: Pid, status: ExitStatus) {
        // Its last words, if it has not come as far as its program.
        self.hear_init(id);
        let Some(process) = self.processes.get_mut(id) else { return };
        debug_assert_eq!(process.pid, pid);
        process.exit = Some(status);
        let streams = process.stdio.end();
        self.again.extend(streams.into_iter().map(|stream| Target::Stream(id.clone(), stream)));
        if let Some(container) = self.containers.get_mut(&id.container) {
            container.phase = Phase::Stopped(status);
            let name = &id.container;
            self.abort_freezing(name, || format!("container {name} is not running: it has ended meanwhile"));
            // Before the end, with which the host stops listening.
            self.report_oom(name);
        }
        self.report_exit(id);
        self.finish_removal(&id.container);
    }

    /// Tells the host how a process ended, once all of its output is out.
    pub(super) fn report_exit(&mut self, id: &Rc<ProcessId>) {
        let Some(process) = self.processes.get_mut(id) else { return };
        let (Some(status), Some(token)) = (process.unreported_exit(), process.connection) else { return };
        process.reported = true;
        if let Some(connection) = self.connections.get_mut(&token) {
            // A connection that cannot be written to reports its end to the loop.
            let _ = connection.send(&ProcessEvent::Ended(status));
        }
    }

    /// The host has let go of a process: it must not outlive that.
    pub(super) fn abandon(&mut self, id: &Rc<ProcessId>, connection: Token) {
        let Some(process) = self.processes.get_mut(id) else { return };
        if process.connection != Some(connection) {
            // It stood for a process that is forgotten, and whose name has a new bearer.
            return;
        }
        process.connection = None;
        process.stdio.close();
        if process.exit.is_none()
            && let Some(container) = self.containers.get(&id.container)
            && let Err(error) = container.cgroup.kill()
        {
            eprintln!("stockade-agent: {}", error.message);
        }
    }
}
