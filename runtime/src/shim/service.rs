//! The methods of containerd's task service. What waits for a guest or a command gets a thread for its time; the rest is
//! answered at once, so an idle shim has one thread.

use std::io;
use std::sync::PoisonError;

use oci_spec::runtime::LinuxResources;
use prost::Message;
use stockade_protocol::container::WindowSize;

use super::messages::{
    Any, CloseIo, Connected, Kill, Name, Pids, ProcessDetails, ProcessInfo, Request, ResizePty, State, Stats,
    TaskStatus, Update,
};
use super::settings::Settings;
use super::tasks::{Phase, Process, Shim, Tasks, named};
use super::wire::{Answer, Code, Refusal, Reply, read};
use super::{metrics, sandbox, workers};
use crate::life_cycle::{self, Handle};
use crate::log;
use crate::oci::bundle;
use crate::options::{CgroupDriver, Globals, LogFormat, LogLevel};
use crate::state::{ContainerError, Root};
use crate::stats::CgroupFiles;
use crate::vm::agent::call;

/// The two names of the service; its messages are the same.
const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// The number of the last signal.
const LAST_SIGNAL: u32 = 64;

impl Shim {
    /// Answers a request, now or later.
    pub fn serve(&'static self, request: Request, reply: Reply) {
        if request.service == sandbox::SERVICE {
            return self.serve_sandbox(request, reply);
        }
        if !SERVICES.contains(&request.service.as_str()) {
            let message = format!("this shim has no service {}", request.service);
            return reply.send(Err(Refusal::new(Code::Unimplemented, message)));
        }
        let payload = request.payload;
        match request.method.as_str() {
            "State" => reply.send(read(&payload).and_then(|name| self.state(&name))),
            "Wait" => self.wait(&payload, reply),
            "Pids" => reply.send(read(&payload).and_then(|name| self.pids(&name))),
            "Connect" => reply.send(read(&payload).and_then(|name| self.connect(&name))),
            "Exec" => reply.send(read(&payload).and_then(|request| self.exec(request))),
            "CloseIO" => reply.send(read(&payload).and_then(|request| self.close_io(&request))),
            "ResizePty" => reply.send(read(&payload).and_then(|request| self.resize(&request))),
            "Shutdown" => reply.send(self.shutdown()),
            "Checkpoint" => reply.send(Err(Refusal::new(
                Code::Unimplemented,
                "Checkpoint: stockade cannot save a container: there are no snapshots yet",
            ))),
            "Create" => self.later(reply, payload, Self::create),
            "Start" => self.later(reply, payload, Self::start),
            "Delete" => self.later(reply, payload, Self::delete),
            "Kill" => self.later(reply, payload, Self::kill),
            "Pause" => self.later(reply, payload, Self::pause),
            "Resume" => self.later(reply, payload, Self::resume),
            "Update" => self.later(reply, payload, Self::update),
            "Stats" => self.later(reply, payload, Self::stats),
            method => reply.send(Err(Refusal::no_method(method))),
        }
    }

    /// Answers from a thread of its own.
    pub fn later<T: Message + Default + 'static>(
        &'static self,
        reply: Reply,
        payload: Vec<u8>,
        method: fn(&'static Self, T) -> Answer,
    ) {
        let refused = reply.clone();
        let body = move || reply.send(read(&payload).and_then(|request| method(self, request)));
        if let Err(cause) = workers::run(body) {
            refused.send(Err(Refusal::no_thread(&cause)));
        }
    }

    /// The options of the commands whose work the shim does itself.
    pub fn globals(&self, settings: &Settings) -> Globals {
        Globals {
            root: Some(settings.root.clone()),
            log: None,
            log_format: LogFormat::Text,
            log_level: LogLevel::Info,
            debug: self.arguments.debug,
            systemd_cgroup: settings.systemd_cgroup,
            cgroup_manager: None::<CgroupDriver>,
            rootless: None,
        }
    }

    fn settings(&self, id: &str) -> Result<Settings, Refusal> {
        Ok(self.tasks().container(id)?.settings.clone())
    }

    fn state(&self, name: &Name) -> Answer {
        let (mut state, settings) = {
            let mut tasks = self.tasks();
            let settings = tasks.container(&name.id)?.settings.clone();
            let bundle = tasks.container(&name.id)?.bundle.display().to_string();
            let process = tasks.process(&name.id, &name.exec_id)?;
            let status = match (&process.exit, process.phase) {
                (Some(_), _) => TaskStatus::Stopped,
                (None, Phase::Created | Phase::Failed) => TaskStatus::Created,
                (None, Phase::Starting | Phase::Started) => TaskStatus::Running,
            };
            let state = State {
                id: name.id.clone(),
                bundle,
                pid: process.pid.unsigned_abs(),
                status: status.into(),
                stdin: process.names.stdin.clone(),
                stdout: process.names.stdout.clone(),
                stderr: process.names.stderr.clone(),
                terminal: process.names.terminal,
                exit_status: process.exit.map_or(0, |exit| exit.status),
                exited_at: process.exit.map(|exit| exit.at.into()),
                exec_id: name.exec_id.clone(),
            };
            (state, settings)
        };
        // Who pauses may be a person at a shell.
        if name.exec_id.is_empty() && state.status == i32::from(TaskStatus::Running) {
            let id = name.id.parse().map_err(anyhow::Error::from)?;
            let record = Root::new(Some(&settings.root)).peek(&id).and_then(|directory| directory.read());
            if matches!(record, Ok(Some(record)) if record.paused) {
                state.status = TaskStatus::Paused.into();
            }
        }
        Ok(state.encode_to_vec())
    }

    fn wait(&self, payload: &[u8], reply: Reply) {
        let name: Name = match read(payload) {
            Ok(name) => name,
            Err(refusal) => return reply.send(Err(refusal)),
        };
        let mut tasks = self.tasks();
        let answer = match tasks.process(&name.id, &name.exec_id) {
            Ok(process) => match process.exit {
                Some(exit) => Ok(exit.answer()),
                None if process.phase == Phase::Failed => Err(Refusal::not_started()),
                None => return process.waiting.push(reply),
            },
            Err(refusal) => Err(refusal),
        };
        drop(tasks);
        reply.send(answer);
    }

    fn pids(&self, name: &Name) -> Answer {
        let mut tasks = self.tasks();
        let container = tasks.container(&name.id)?;
        let lives = |process: &&Process| process.runs();
        let init = Some(&container.init)
            .filter(lives)
            .map(|init| ProcessInfo { pid: init.pid.unsigned_abs(), info: None });
        let execs = container.execs.iter().filter(|(_, process)| process.runs()).map(|(exec_id, process)| {
            let details = ProcessDetails { exec_id: exec_id.clone() };
            let info = Any::new("containerd.runc.v1.ProcessDetails", &details);
            ProcessInfo { pid: process.pid.unsigned_abs(), info: Some(info) }
        });
        Ok(Pids { processes: init.into_iter().chain(execs).collect() }.encode_to_vec())
    }

    fn connect(&self, name: &Name) -> Answer {
        let task_pid = self.tasks().process(&name.id, "").map_or(0, |process| process.pid.unsigned_abs());
        Ok(Connected { shim_pid: std::process::id(), task_pid, version: String::new() }.encode_to_vec())
    }

    fn close_io(&self, request: &CloseIo) -> Answer {
        let mut tasks = self.tasks();
        let process = tasks.process(&request.id, &request.exec_id)?;
        if request.stdin {
            process.kept.input = None;
            process.input_is_closed = true;
        }
        Ok(Vec::new())
    }

    fn resize(&self, request: &ResizePty) -> Answer {
        let mut tasks = self.tasks();
        let process = tasks.process(&request.id, &request.exec_id)?;
        let clamp = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
        let size = WindowSize { rows: clamp(request.height), columns: clamp(request.width) };
        if let Some(terminal) = &process.terminal {
            let failed =
                |cause: io::Error| Refusal::new(Code::Unknown, format!("the terminal's size: {cause}"));
            terminal.resize(size).map_err(failed)?;
        }
        Ok(Vec::new())
    }

    /// A shim with containers goes on: another container of the pod has been removed.
    fn shutdown(&self) -> Answer {
        let mut tasks = self.tasks();
        if tasks.containers.is_empty() && tasks.creating.is_empty() {
            tasks.is_over = true;
        }
        Ok(Vec::new())
    }

    fn kill(&'static self, request: Kill) -> Answer {
        let signal = i32::try_from(request.signal).ok().filter(|_| request.signal <= LAST_SIGNAL);
        let signal = signal.ok_or_else(|| {
            Refusal::new(
                Code::InvalidArgument,
                format!("signal {}: the last one is {LAST_SIGNAL}", request.signal),
            )
        })?;
        let gone = || Refusal::new(Code::NotFound, "process already finished");
        if !request.exec_id.is_empty() {
            // A client that gives a Start up kills what that may still bring.
            let is_starting = |tasks: &mut Tasks| {
                let process = tasks.process(&request.id, &request.exec_id);
                process.is_ok_and(|process| process.phase == Phase::Starting)
            };
            let waited = self.changed.wait_while(self.tasks(), is_starting);
            let mut tasks = waited.unwrap_or_else(PoisonError::into_inner);
            let process = tasks.process(&request.id, &request.exec_id)?;
            if process.has_ended() {
                return Err(gone());
            }
            if process.pid == 0 {
                return Err(Refusal::not_started());
            }
            // The relay passes it on. It is not reaped without the lock, so the PID is its own.
            // SAFETY: kill takes two integers.
            return match unsafe { libc::kill(process.pid, signal) } {
                0 => Ok(Vec::new()),
                _ => Err(gone()),
            };
        }
        let has_ended = self.tasks().process(&request.id, "")?.has_ended();
        if has_ended {
            return if request.all { Ok(Vec::new()) } else { Err(gone()) };
        }
        let settings = self.settings(&request.id)?;
        match self.signal_container(&settings, &request.id, signal, request.all) {
            Err(error) if matches!(error.downcast_ref(), Some(ContainerError::NotRunning)) => Err(gone()),
            result => Ok(result.map(|()| Vec::new())?),
        }
    }

    fn pause(&'static self, name: Name) -> Answer {
        let settings = self.settings(&name.id)?;
        life_cycle::pause(&Handle::lock(&self.globals(&settings), &name.id)?)?;
        self.publisher
            .publish("/tasks/paused", Any::new("containerd.events.TaskPaused", &named(&name.id, "")));
        Ok(Vec::new())
    }

    fn resume(&'static self, name: Name) -> Answer {
        let settings = self.settings(&name.id)?;
        life_cycle::resume(&Handle::lock(&self.globals(&settings), &name.id)?)?;
        self.publisher
            .publish("/tasks/resumed", Any::new("containerd.events.TaskResumed", &named(&name.id, "")));
        Ok(Vec::new())
    }

    fn update(&'static self, request: Update) -> Answer {
        let settings = self.settings(&request.id)?;
        let resources = request.resources.unwrap_or_default().value;
        let resources: LinuxResources = bundle::parse(&resources)
            .map_err(|problem| Refusal::new(Code::InvalidArgument, format!("resources: {problem}")))?;
        let handle = Handle::lock(&self.globals(&settings), &request.id)?;
        handle.relay().map_err(anyhow::Error::from)?;
        life_cycle::update(&handle, &resources)?;
        Ok(Vec::new())
    }

    fn stats(&'static self, name: Name) -> Answer {
        let settings = self.settings(&name.id)?;
        let handle = Handle::peek(&self.globals(&settings), &name.id)?;
        let files = handle.ask(call::CgroupFiles(name.id)).map_err(life_cycle::explain)?;
        Ok(Stats { stats: Some(metrics::of(&CgroupFiles::new(files))) }.encode_to_vec())
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        let code = match error.downcast_ref() {
            Some(ContainerError::DoesNotExist(_) | ContainerError::NotRunning) => Code::NotFound,
            Some(ContainerError::Exists(_)) => Code::AlreadyExists,
            Some(_) => Code::FailedPrecondition,
            None => Code::Unknown,
        };
        Self::new(code, log::explain(&error))
    }
}
