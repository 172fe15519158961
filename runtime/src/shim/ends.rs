//! How the ends of processes are told: after their starts, once their output has been delivered, and that of a container last.

use std::mem;
use std::sync::PoisonError;
use std::time::Duration;

use super::guest::Guest;
use super::messages::{Any, TaskExit};
use super::tasks::{Exit, Phase, Process, Shim, Tasks, named};
use super::terminal::Terminal;
use super::wire::Reply;
use super::workers;

/// Largest number of reads from a guest whose container has ended, which could go on sending for ever.
const LAST_WORDS: usize = 64;

/// How long the rest of a terminal's output may take to reach a client that reads slowly.
const DELIVERED_WITHIN: Duration = Duration::from_secs(10);

/// How long the execs of a container that has ended may take to deliver the output of their terminals.
const EXECS_END_WITHIN: Duration = Duration::from_secs(2);

impl Shim {
    /// Tells that a process has started and, if it has ended meanwhile, that too. The result are those who wait for its end.
    pub fn has_started(&'static self, tasks: &mut Tasks, id: &str, exec_id: &str) -> Vec<Reply> {
        let Ok(process) = tasks.process(id, exec_id) else { return Vec::new() };
        process.phase = Phase::Started;
        match process.early.take() {
            Some(exit) => self.ended(tasks, id, exec_id, exit),
            None => Vec::new(),
        }
    }

    /// A start has failed: a container's first process is as it was, or has ended, and an exec will not begin any more. The result are
    /// those who wait for the end.
    pub fn has_not_started(&'static self, tasks: &mut Tasks, id: &str, exec_id: &str) -> Vec<Reply> {
        let Ok(process) = tasks.process(id, exec_id) else { return Vec::new() };
        if !exec_id.is_empty() {
            process.phase = Phase::Failed;
            return mem::take(&mut process.waiting);
        }
        process.phase = Phase::Created;
        match process.early.take() {
            Some(exit) => self.ended(tasks, id, exec_id, exit),
            None => Vec::new(),
        }
    }

    /// A process has ended: tells containerd now, or once its output has been delivered and the container's execs have ended. The
    /// result are those who wait for it.
    pub fn ended(&'static self, tasks: &mut Tasks, id: &str, exec_id: &str, exit: Exit) -> Vec<Reply> {
        let Ok(process) = tasks.process(id, exec_id) else { return Vec::new() };
        if process.phase == Phase::Starting {
            process.early = Some(exit);
            return Vec::new();
        }
        let delivered = process.terminal.as_ref().map(Terminal::delivered);
        if delivered.is_none() && (!exec_id.is_empty() || !has_open_execs(tasks, id)) {
            return self.tell(tasks, id, exec_id, exit);
        }
        // It counts as ended for those who would signal it.
        if let Ok(process) = tasks.process(id, exec_id) {
            process.early = Some(exit);
        }
        let (id_of, exec_of) = (id.to_owned(), exec_id.to_owned());
        let wait = move || {
            if let Some(delivered) = delivered {
                delivered.wait(DELIVERED_WITHIN);
            }
            if exec_of.is_empty() {
                self.end_execs(&id_of);
            }
            let told = self.tell(&mut self.tasks(), &id_of, &exec_of, exit);
            told.into_iter().for_each(|reply| reply.send(Ok(exit.answer())));
        };
        match workers::run(wait) {
            Ok(()) => Vec::new(),
            Err(_) => self.tell(tasks, id, exec_id, exit),
        }
    }

    /// Waits until the ends of the execs of a container that has ended are told. Their relays have ended before its own, in whose PID
    /// namespace they are, but a client may not read what a terminal has for it: that is lost then.
    fn end_execs(&'static self, id: &str) {
        let tasks = self.tasks();
        let waited =
            self.changed.wait_timeout_while(tasks, EXECS_END_WITHIN, |tasks| has_open_execs(tasks, id));
        let mut tasks = waited.unwrap_or_else(PoisonError::into_inner).0;
        let late = tasks.execs(id).filter_map(|(exec_id, process)| {
            let exit = process.early.filter(|_| process.phase == Phase::Started)?;
            Some((exec_id.clone(), exit))
        });
        let late: Vec<_> = late.collect();
        let told: Vec<_> = late
            .into_iter()
            .map(|(exec_id, exit)| (self.tell(&mut tasks, id, &exec_id, exit), exit))
            .collect();
        drop(tasks);
        for (replies, exit) in told {
            replies.into_iter().for_each(|reply| reply.send(Ok(exit.answer())));
        }
    }

    /// Tells the end of a process, unless it has been told.
    fn tell(&'static self, tasks: &mut Tasks, id: &str, exec_id: &str, exit: Exit) -> Vec<Reply> {
        // What the guest has said of the container comes before its end.
        let events = tasks.containers.get(id).and_then(|container| container.events.clone());
        if let Some(events) = events.filter(|_| exec_id.is_empty()) {
            self.hear(tasks, id, &events, LAST_WORDS);
        }
        let Ok(process) = tasks.process(id, exec_id) else { return Vec::new() };
        if process.exit.is_some() {
            return Vec::new();
        }
        process.early = None;
        process.exit = Some(exit);
        let event = TaskExit {
            container_id: id.to_owned(),
            id: if exec_id.is_empty() { id.to_owned() } else { exec_id.to_owned() },
            pid: process.pid.unsigned_abs(),
            exit_status: exit.status,
            exited_at: Some(exit.at.into()),
        };
        self.publish(id, "/tasks/exit", Any::new("containerd.events.TaskExit", &event));
        self.changed.notify_all();
        mem::take(&mut process.waiting)
    }

    /// Publishes what a guest has sent about a container, and closes the connection at its end.
    pub fn hear(&'static self, tasks: &mut Tasks, id: &str, guest: &Guest, times: usize) {
        let news = guest.hear(id, times);
        if news.is_over
            && let Ok(container) = tasks.container(id)
        {
            container.events = None;
        }
        // One event for all that has come.
        if news.is_out_of_memory {
            self.publisher.publish("/tasks/oom", Any::new("containerd.events.TaskOOM", &named(id, "")));
        }
    }
}

/// Whether a container has execs whose start or end is still to be told.
fn has_open_execs(tasks: &Tasks, id: &str) -> bool {
    let is_open = |process: &Process| {
        process.exit.is_none() && matches!(process.phase, Phase::Starting | Phase::Started)
    };
    tasks.execs(id).any(|(_, process)| is_open(process))
}
