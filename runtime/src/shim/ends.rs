//! How the ends of processes are told: after their starts, and once their output has been delivered.

use std::mem;
use std::time::Duration;

use super::guest::Guest;
use super::messages::{Any, TaskExit};
use super::tasks::{Exit, Phase, Shim, Tasks, named};
use super::terminal::Terminal;
use super::wire::Reply;
use super::workers;

/// Largest number of reads from a guest whose container has ended, which could go on sending for ever.
const LAST_WORDS: usize = 64;

/// How long the rest of a terminal's output may take to reach a client that reads slowly.
const DELIVERED_WITHIN: Duration = Duration::from_secs(10);

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

    /// A start has failed: the process is as it was, or has ended. The result are those who wait for the end of what will not begin.
    pub fn has_not_started(&'static self, tasks: &mut Tasks, id: &str, exec_id: &str) -> Vec<Reply> {
        let Ok(process) = tasks.process(id, exec_id) else { return Vec::new() };
        process.phase = Phase::Created;
        match process.early.take() {
            Some(exit) => self.ended(tasks, id, exec_id, exit),
            // The first process still waits for Start, or for its end.
            None if exec_id.is_empty() => Vec::new(),
            None => mem::take(&mut process.waiting),
        }
    }

    /// A process has ended: tells containerd now, or once its output has been delivered. The result are those who wait for it.
    pub fn ended(&'static self, tasks: &mut Tasks, id: &str, exec_id: &str, exit: Exit) -> Vec<Reply> {
        let Ok(process) = tasks.process(id, exec_id) else { return Vec::new() };
        if process.phase == Phase::Starting {
            process.early = Some(exit);
            return Vec::new();
        }
        let Some(delivered) = process.terminal.as_ref().map(Terminal::delivered) else {
            return self.tell(tasks, id, exec_id, exit);
        };
        // It counts as ended for those who would signal it.
        process.early = Some(exit);
        let names = (id.to_owned(), exec_id.to_owned());
        let wait = move || {
            delivered.wait(DELIVERED_WITHIN);
            let told = self.tell(&mut self.tasks(), &names.0, &names.1, exit);
            self.changed.notify_all();
            told.into_iter().for_each(|reply| reply.send(Ok(exit.answer())));
        };
        match workers::run(wait) {
            Ok(()) => Vec::new(),
            Err(_) => self.tell(tasks, id, exec_id, exit),
        }
    }

    fn tell(&'static self, tasks: &mut Tasks, id: &str, exec_id: &str, exit: Exit) -> Vec<Reply> {
        // What the guest has said of the container comes before its end.
        let events = tasks.containers.get(id).and_then(|container| container.events.clone());
        if let Some(events) = events.filter(|_| exec_id.is_empty()) {
            self.hear(tasks, id, &events, LAST_WORDS);
        }
        let Ok(process) = tasks.process(id, exec_id) else { return Vec::new() };
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
