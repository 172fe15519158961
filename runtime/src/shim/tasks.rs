//! The tasks of a shim, and what is known of their ends.
//!
//! One thread reaps all children: commands of the runtime, for which other threads wait; relays, whose ends are the tasks' ends;
//! loggers; and what the runtime leaves behind that is nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use prost::Message;

use super::arguments::Arguments;
use super::guest::Guest;
use super::messages::{Any, Exited, TaskNamed};
use super::publisher::Publisher;
use super::settings::Settings;
use super::stdio::{Kept, Names};
use super::terminal::Terminal;
use super::wire::{Code, Refusal, Reply};

/// A shim that serves.
#[derive(Debug)]
pub struct Shim {
    pub arguments: Arguments,
    pub publisher: Publisher,
    /// Wakes the main thread after a change of what it waits for.
    pub wake: EventFd,
    /// The runtime's options, as containerd has given them at the shim's start.
    pub options: Option<Any>,
    /// The sandbox that containerd has made by the sandbox API, once it has.
    pub sandbox: OnceLock<Sandbox>,
    tasks: Mutex<Tasks>,
    pub changed: Condvar,
}

/// The sandbox that containerd has made by the sandbox API.
#[derive(Debug)]
pub struct Sandbox {
    pub id: String,
    pub bundle: PathBuf,
    pub created: SystemTime,
}

/// Everything that changes.
#[derive(Debug, Default)]
pub struct Tasks {
    pub containers: BTreeMap<String, Container>,
    /// Containers whose Create has not ended.
    pub creating: BTreeSet<String>,
    /// Children that somebody waits for: their statuses when they have ended.
    commands: BTreeMap<i32, Option<u32>>,
    /// Children that were nobody's when they ended; kept while a command is under way that may tell whose they were.
    orphans: Vec<(i32, u32)>,
    under_way: usize,
    /// The end of the sandbox whose container has been removed.
    pub of_sandbox: Option<Exit>,
    /// Whether containerd has asked the shim to end.
    pub is_over: bool,
}

/// A container, whose first process is its task.
#[derive(Debug)]
pub struct Container {
    pub bundle: PathBuf,
    pub settings: Settings,
    pub init: Process,
    pub execs: BTreeMap<String, Process>,
    /// The connection on which the guest tells what becomes of the container.
    pub events: Option<Arc<Guest>>,
}

/// How far a process has come; its end is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for Start.
    Created,
    /// Start is under way.
    Starting,
    /// It runs, or has run.
    Started,
    /// Start has failed, of an exec: it will never run.
    Failed,
}

/// A process, as containerd knows it.
#[derive(Debug)]
pub struct Process {
    pub names: Names,
    /// What an exec is to execute, in JSON.
    pub spec: Vec<u8>,
    /// The relay's PID; 0 for an exec that has not started.
    pub pid: i32,
    pub phase: Phase,
    /// Its end, once containerd has been told.
    pub exit: Option<Exit>,
    /// Its end, while its start is still to be told.
    pub early: Option<Exit>,
    pub kept: Kept,
    pub terminal: Option<Terminal>,
    /// Whether containerd has closed its input, maybe before it was there.
    pub input_is_closed: bool,
    /// Who waits for its end.
    pub waiting: Vec<Reply>,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    pub status: u32,
    pub at: SystemTime,
}

impl Process {
    pub fn new(names: Names, spec: Vec<u8>) -> Self {
        Self {
            names,
            spec,
            pid: 0,
            phase: Phase::Created,
            exit: None,
            early: None,
            kept: Kept::default(),
            terminal: None,
            input_is_closed: false,
            waiting: Vec::new(),
        }
    }

    /// Whether it has ended, told or not.
    pub fn has_ended(&self) -> bool {
        self.exit.is_some() || self.early.is_some()
    }

    /// Whether its relay lives, or is not reaped yet.
    pub fn runs(&self) -> bool {
        self.pid != 0 && !self.has_ended()
    }

    /// Takes over what was made of its streams.
    pub fn keep(&mut self, kept: Kept, terminal: Option<Terminal>) {
        (self.kept, self.terminal) = (kept, terminal);
        if self.input_is_closed {
            self.kept.input = None;
        }
    }
}

impl Exit {
    /// The answer to Wait.
    pub fn answer(&self) -> Vec<u8> {
        Exited { exit_status: self.status, exited_at: Some(self.at.into()) }.encode_to_vec()
    }
}

impl Tasks {
    /// A process by the names that containerd gives it.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub fn process(&mut self, id: &str, exec_id: &str) -> Result<&mut Process, Refusal> {
        let container = self.container(id)?;
        match exec_id {
            "" => Ok(&mut container.init),
            exec => container.execs.get_mut(exec).ok_or_else(|| {
                Refusal::new(Code::NotFound, format!("container {id} has no process {exec:?}"))
            }),
        }
    }

    /// A container.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub fn container(&mut self, id: &str) -> Result<&mut Container, Refusal> {
        let found = self.containers.get_mut(id);
        found.ok_or_else(|| Refusal::no_container(id))
    }

    /// The execs of a container, with their IDs.
    pub fn execs(&self, id: &str) -> impl Iterator<Item = (&String, &Process)> {
        self.containers.get(id).into_iter().flat_map(|container| &container.execs)
    }

    /// The names of the process with this PID that has not ended.
    fn named(&self, pid: i32) -> Option<(String, String)> {
        let is_it = |process: &Process| process.pid == pid && !process.has_ended();
        self.containers.iter().find_map(|(id, container)| {
            if is_it(&container.init) {
                return Some((id.clone(), String::new()));
            }
            let exec = container.execs.iter().find(|(_, process)| is_it(process))?;
            Some((id.clone(), exec.0.clone()))
        })
    }
}

impl Shim {
    pub fn new(arguments: Arguments, options: Option<Any>, publisher: Publisher, wake: EventFd) -> Self {
        let (tasks, changed) = (Mutex::default(), Condvar::new());
        Self { arguments, publisher, wake, options, sandbox: OnceLock::new(), tasks, changed }
    }

    /// The tasks; nothing that waits is called meanwhile.
    pub fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes an event of a task.
    pub fn publish(&'static self, id: &str, topic: &str, event: Any) {
        if !self.is_no_task(id) {
            self.publisher.publish(topic, event);
        }
    }

    /// Lets the main thread look again at what it waits for.
    pub fn wake(&self) {
        // It fails only where the counter is at its end, and then it is awake.
        let _ = self.wake.write(1);
    }

    /// From now on, ends of children are remembered of which nobody knows yet whose they are.
    pub fn begin_command(&'static self) -> UnderWay {
        self.tasks().under_way += 1;
        UnderWay(self)
    }

    /// Starts a child that somebody may wait for.
    ///
    /// # Errors
    /// Those of [`Command::spawn`].
    #[allow(clippy::zombie_processes, reason = "the main thread reaps all children")]
    pub fn spawn(&self, command: &mut Command) -> io::Result<i32> {
        // A PID is below 2^22.
        self.begin(|| Ok(command.spawn()?.id() as i32))
    }

    /// Lets `make` make a child that somebody may wait for; the result is its PID.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn begin(&self, make: impl FnOnce() -> io::Result<i32>) -> io::Result<i32> {
        // With the lock: where the program cannot be executed, the standard library reaps the child itself, and panics if it cannot.
        let mut tasks = self.tasks();
        let pid = make()?;
        tasks.commands.insert(pid, None);
        Ok(pid)
    }

    /// Waits for the end of a child: its status, or `None` when the time is over.
    pub fn wait_for(&self, child: i32, within: Option<Duration>) -> Option<u32> {
        let lives = |tasks: &mut Tasks| matches!(tasks.commands.get(&child), Some(None));
        let tasks = self.tasks();
        let mut tasks = match within {
            None => self.changed.wait_while(tasks, lives).unwrap_or_else(PoisonError::into_inner),
            Some(time) => {
                self.changed.wait_timeout_while(tasks, time, lives).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let status = tasks.commands.get(&child).copied().flatten()?;
        tasks.commands.remove(&child);
        Some(status)
    }

    /// Signals a child that somebody may wait for, unless it has ended.
    pub fn signal_command(&self, child: i32, signal: i32) {
        let tasks = self.tasks();
        if matches!(tasks.commands.get(&child), Some(None)) {
            // SAFETY: kill takes two integers; with the lock, the child is not reaped.
            unsafe { libc::kill(child, signal) };
        }
    }

    /// Waits until the end of a process has been told, or the time is over.
    pub fn wait_told(&self, id: &str, within: Duration) {
        let tasks = self.tasks();
        let waited = self.changed.wait_timeout_while(tasks, within, |tasks| {
            tasks.containers.get(id).is_some_and(|container| container.init.exit.is_none())
        });
        drop(waited);
    }

    /// Reaps every child that has ended.
    pub fn reap(&'static self) {
        loop {
            // With the lock, so that nobody signals a PID that was given to another process.
            let mut tasks = self.tasks();
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => (pid.as_raw(), status.unsigned_abs()),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    (pid.as_raw(), 128 + (signal as i32).unsigned_abs())
                }
                Err(Errno::EINTR) => continue,
                _ => return,
            };
            // One that has ended before had the PID of this one, and nobody has asked for its status yet.
            if let Some(ended @ None) = tasks.commands.get_mut(&pid) {
                *ended = Some(status);
            } else if let Some((id, exec_id)) = tasks.named(pid) {
                let exit = Exit { status, at: SystemTime::now() };
                let told = self.ended(&mut tasks, &id, &exec_id, exit);
                drop(tasks);
                told.into_iter().for_each(|reply| reply.send(Ok(exit.answer())));
            } else if tasks.under_way > 0 {
                tasks.orphans.push((pid, status));
            }
            self.changed.notify_all();
        }
    }

    /// Gives a process its PID, which a command has told.
    pub fn has_pid(&'static self, tasks: &mut Tasks, id: &str, exec_id: &str, pid: i32) {
        let ended = take_orphan(tasks, pid);
        let Ok(process) = tasks.process(id, exec_id) else { return };
        process.pid = pid;
        if let Some(status) = ended {
            let exit = Exit { status, at: SystemTime::now() };
            // Nobody waits for what was not known until now.
            self.ended(tasks, id, exec_id, exit);
        }
    }
}

/// The event that only names a container, or one of its processes.
pub fn named(id: &str, exec_id: &str) -> TaskNamed {
    TaskNamed { container_id: id.to_owned(), exec_id: exec_id.to_owned() }
}

fn take_orphan(tasks: &mut Tasks, pid: i32) -> Option<u32> {
    let index = tasks.orphans.iter().rposition(|(orphan, _)| *orphan == pid)?;
    Some(tasks.orphans.remove(index).1)
}

/// A command that may make children whose PIDs are not known yet.
#[derive(Debug)]
pub struct UnderWay(&'static Shim);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut tasks = self.0.tasks();
        tasks.under_way -= 1;
        if tasks.under_way == 0 {
            tasks.orphans = Vec::new();
        }
    }
}
