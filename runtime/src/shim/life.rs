//! The life of a task: Create, Exec, Start and Delete.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost::Message;

use super::address::Place;
use super::command::{Command, New, Told};
use super::guest::Guest;
use super::messages::{
    self, Any, CreateTask, Deleted, ExecProcess, Name, Pid, TaskExecStarted, TaskIo, TaskStart,
};
use super::settings::{Options, Settings};
use super::stdio::{self, Kept, LOGGER_OBEYS_WITHIN, Names, Streams};
use super::tasks::{Container, Exit, Phase, Process, Shim, named};
use super::terminal::{ConsoleSocket, Terminal};
use super::wire::{Answer, Code, Refusal};
use super::{execute, pod_bundle, rootfs};
use crate::life_cycle::{self, Handle};
use crate::log;
use crate::oci::container_id::ContainerId;
use crate::state::ContainerError;
use crate::vm::agent::Events;

/// The runtime's log of the commands that make, start and remove a container, in the bundle.
const LOG: &str = "log.json";

/// The file in the bundle with the PID of the container's relay.
const PID_FILE: &str = "init.pid";

/// How long containerd may have to wait to be told that a container that was removed before it ran has ended.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// What a process of a container is made with.
struct Made {
    pid: i32,
    kept: Kept,
    terminal: Option<Terminal>,
}

impl Shim {
    /// Create.
    pub fn create(&'static self, request: CreateTask) -> Answer {
        let id: ContainerId =
            request.id.parse().map_err(|error| Refusal::new(Code::InvalidArgument, format!("{error}")))?;
        if !request.checkpoint.is_empty() {
            return Err(Refusal::new(
                Code::Unimplemented,
                "stockade cannot restore a checkpoint: there are no snapshots yet",
            ));
        }
        {
            let mut tasks = self.tasks();
            if tasks.containers.contains_key(id.as_str()) || !tasks.creating.insert(id.to_string()) {
                return Err(Refusal::new(Code::AlreadyExists, format!("container {:?} exists", id.as_str())));
            }
        }
        let made = self.make(&request);
        self.tasks().creating.remove(id.as_str());
        self.wake();
        made
    }

    fn make(&'static self, request: &CreateTask) -> Answer {
        let bundle = Path::new(&request.bundle);
        let options = Options::parse(request.options.as_ref())?;
        for name in &options.without_effect {
            tracing::warn!("the runtime's option {name} has no effect");
        }
        let place = Place::of(bundle, &request.id)?;
        let settings = Settings {
            has_members: self.is_no_task(&request.id),
            ..Settings::new(&options, &place, &self.arguments.namespace)
        };
        settings.write(bundle)?;
        if let Some(sandbox) = self.sandbox_of(&request.id, &place.group) {
            pod_bundle::complete(bundle, &sandbox.bundle)?;
        }
        rootfs::mount_all(&request.rootfs, bundle).map_err(anyhow::Error::from)?;
        let names = Names {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let (log, pid_file) = (bundle.join(LOG), bundle.join(PID_FILE));
        let _under_way = self.begin_command();
        let process = New::Init { bundle };
        let made =
            self.execute_process(&settings, [&log, &pid_file], process, [&request.id, ""], &names, bundle);
        let made = made.inspect_err(|_| {
            if let Err(error) = rootfs::unmount_all(bundle) {
                tracing::warn!("{error}");
            }
        })?;
        let events = self.listen(&settings, &request.id);
        let mut init = Process::new(names, Vec::new());
        init.keep(made.kept, made.terminal);
        let container =
            Container { bundle: bundle.to_owned(), settings, init, execs: Default::default(), events };
        let mut tasks = self.tasks();
        tasks.containers.insert(request.id.clone(), container);
        let event = messages::TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs.clone(),
            io: Some(TaskIo {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
            }),
            pid: made.pid.unsigned_abs(),
        };
        self.publish(&request.id, "/tasks/create", Any::new("containerd.events.TaskCreate", &event));
        self.has_pid(&mut tasks, &request.id, "", made.pid);
        Ok(Pid { pid: made.pid.unsigned_abs() }.encode_to_vec())
    }

    /// The connection on which the guest tells what becomes of a container. A guest that does not give one loses only events.
    fn listen(&self, settings: &Settings, id: &str) -> Option<Arc<Guest>> {
        let open = || -> anyhow::Result<Arc<Guest>> {
            let handle = Handle::peek(&self.globals(settings), id)?;
            Ok(Guest::new(Events::open(handle.directory.as_fd(), id, &mut handle.wait())?)?)
        };
        match open() {
            Ok(guest) => Some(guest),
            Err(error) => {
                tracing::warn!("container {id}: no events of the guest: {error:#}");
                None
            }
        }
    }

    /// Has `create` or `exec` carried out with the streams of the new process.
    fn execute_process(
        &'static self,
        settings: &Settings,
        [log, pid_file]: [&Path; 2],
        process: New<'_>,
        [id, exec_id]: [&str; 2],
        names: &Names,
        bundle: &Path,
    ) -> Result<Made, Refusal> {
        let namespace = &self.arguments.namespace;
        let mut logger = None;
        let opened = stdio::open(names, [id, namespace], |command| {
            let pid = self.spawn(command)?;
            logger = Some(pid);
            Ok(pid)
        });
        let (streams, mut kept) = opened.inspect_err(|_| {
            if let Some(pid) = logger {
                self.signal_command(pid, libc::SIGKILL);
                self.wait_for(pid, Some(LOGGER_OBEYS_WITHIN));
            }
        })?;
        let console = match names.terminal {
            false => None,
            true => Some(ConsoleSocket::new(bundle, &format!("console{exec_id}.sock"))?),
        };
        let console_socket = console.as_ref().map(|console| &*console.path);
        let command = Command::Make(process, Told { pid_file, console_socket });
        let (given, own): (Option<Streams>, _) =
            if console.is_some() { (None, Some(streams)) } else { (Some(streams), None) };
        let executed = self.execute(settings, log, command, id, given).and_then(|()| {
            let terminal = match (console, own) {
                (Some(console), Some(streams)) => {
                    Some(Terminal::attend(console.receive()?, streams).map_err(|cause| {
                        Refusal::new(Code::ResourceExhausted, format!("the terminal: {cause}"))
                    })?)
                }
                _ => None,
            };
            Ok(Made { pid: read_pid(pid_file)?, kept: std::mem::take(&mut kept), terminal })
        });
        if executed.is_err() {
            self.let_go(kept);
        }
        executed
    }

    /// Exec: the process is known from now on; Start executes it.
    pub fn exec(&'static self, request: ExecProcess) -> Answer {
        let valid = request.exec_id.parse::<ContainerId>();
        valid.map_err(|error| Refusal::new(Code::InvalidArgument, format!("the exec's ID: {error}")))?;
        let names = Names {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let process = Process::new(names, request.spec.unwrap_or_default().value);
        let mut tasks = self.tasks();
        let container = tasks.container(&request.id)?;
        refuse_stopped(container)?;
        if container.execs.contains_key(&request.exec_id) {
            return Err(Refusal::new(Code::AlreadyExists, format!("process {:?} exists", request.exec_id)));
        }
        container.execs.insert(request.exec_id.clone(), process);
        let event = named(&request.id, &request.exec_id);
        self.publisher.publish("/tasks/exec-added", Any::new("containerd.events.TaskExecAdded", &event));
        Ok(Vec::new())
    }

    /// Start.
    pub fn start(&'static self, name: Name) -> Answer {
        let (id, exec_id) = (name.id.as_str(), name.exec_id.as_str());
        let (settings, bundle) = {
            let mut tasks = self.tasks();
            if !exec_id.is_empty() {
                refuse_stopped(tasks.container(id)?)?;
            }
            let process = tasks.process(id, exec_id)?;
            if process.phase != Phase::Created || process.has_ended() {
                let state = match process.phase {
                    _ if process.has_ended() => "has stopped",
                    Phase::Failed => "has failed to start",
                    _ => "has been started",
                };
                return Err(Refusal::new(
                    Code::FailedPrecondition,
                    format!("cannot start a process that {state}"),
                ));
            }
            process.phase = Phase::Starting;
            let container = tasks.container(id)?;
            (container.settings.clone(), container.bundle.clone())
        };
        let started = match exec_id {
            "" => self.start_init(&settings, &bundle, id),
            _ => self.start_exec(&settings, &bundle, id, exec_id),
        };
        let mut tasks = self.tasks();
        let (answer, told) = match started {
            Ok(()) => match tasks.process(id, exec_id).map(|process| process.pid.unsigned_abs()) {
                Ok(pid) => {
                    self.publish_start(id, exec_id, pid);
                    (Ok(Pid { pid }.encode_to_vec()), self.has_started(&mut tasks, id, exec_id))
                }
                // The container has been removed meanwhile.
                Err(refusal) => (Err(refusal), Vec::new()),
            },
            Err(refusal) => (Err(refusal), self.has_not_started(&mut tasks, id, exec_id)),
        };
        let exit = tasks.process(id, exec_id).ok().and_then(|process| process.exit);
        drop(tasks);
        self.changed.notify_all();
        for reply in told {
            reply.send(exit.map(|exit| exit.answer()).ok_or_else(Refusal::not_started));
        }
        answer
    }

    fn start_init(&'static self, settings: &Settings, bundle: &Path, id: &str) -> Result<(), Refusal> {
        let is_started = match settings.binary {
            Some(_) => false,
            None => self.start_here(settings, id).map_err(|error| execute::refusal(&log::explain(&error)))?,
        };
        if is_started {
            return Ok(());
        }
        self.execute(settings, &bundle.join(LOG), Command::Start, id, None)
    }

    fn publish_start(&'static self, id: &str, exec_id: &str, pid: u32) {
        if exec_id.is_empty() {
            let event = TaskStart { container_id: id.to_owned(), pid };
            return self.publish(id, "/tasks/start", Any::new("containerd.events.TaskStart", &event));
        }
        let event = TaskExecStarted { container_id: id.to_owned(), exec_id: exec_id.to_owned(), pid };
        self.publisher.publish("/tasks/exec-started", Any::new("containerd.events.TaskExecStarted", &event));
    }

    fn start_exec(
        &'static self,
        settings: &Settings,
        bundle: &Path,
        id: &str,
        exec_id: &str,
    ) -> Result<(), Refusal> {
        let (names, spec) = {
            let mut tasks = self.tasks();
            let process = tasks.process(id, exec_id)?;
            (process.names.clone(), std::mem::take(&mut process.spec))
        };
        let at = |end: &str| bundle.join(format!("exec-{exec_id}{end}"));
        let (process, log, pid_file) = (at(".json"), at(".log"), at(".pid"));
        let _under_way = self.begin_command();
        let write = || fs::write(&process, &spec);
        let made = write()
            .map_err(|cause| {
                Refusal::new(Code::Unknown, format!("cannot write {}: {cause}", process.display()))
            })
            .and_then(|()| {
                let process = New::Exec { process: &process };
                self.execute_process(settings, [&log, &pid_file], process, [id, exec_id], &names, bundle)
            });
        for file in [&process, &log, &pid_file] {
            // What was not made is not there.
            let _ = fs::remove_file(file);
        }
        let made = made?;
        let mut tasks = self.tasks();
        if let Ok(process) = tasks.process(id, exec_id) {
            process.keep(made.kept, made.terminal);
        }
        self.has_pid(&mut tasks, id, exec_id, made.pid);
        Ok(())
    }

    /// Delete.
    pub fn delete(&'static self, name: Name) -> Answer {
        let (id, exec_id) = (name.id.as_str(), name.exec_id.as_str());
        {
            let mut tasks = self.tasks();
            let process = tasks.process(id, exec_id)?;
            let has_begun = matches!(process.phase, Phase::Starting | Phase::Started);
            let runs = has_begun && process.exit.is_none();
            if runs {
                return Err(Refusal::new(
                    Code::FailedPrecondition,
                    "cannot delete a running process; kill it first",
                ));
            }
        }
        if !exec_id.is_empty() {
            let process = self.tasks().container(id)?.execs.remove(exec_id);
            let process =
                process.ok_or_else(|| Refusal::new(Code::NotFound, format!("no process {exec_id:?}")))?;
            let deleted = deleted(process.pid, process.exit);
            process.waiting.into_iter().for_each(|reply| reply.send(Err(Refusal::not_started())));
            self.end_left_streams(id, &process.kept);
            self.let_go(process.kept);
            return Ok(deleted.encode_to_vec());
        }
        self.remove(id)
    }

    /// Removes a container that does not run.
    ///
    /// # Errors
    /// The runtime's; [`Code::NotFound`] where another request has removed it.
    pub fn remove(&'static self, id: &str) -> Answer {
        let (settings, bundle) = {
            let mut tasks = self.tasks();
            let container = tasks.container(id)?;
            (container.settings.clone(), container.bundle.clone())
        };
        match self.execute(&settings, &bundle.join(LOG), Command::Delete, id, None) {
            // Somebody has removed it by hand.
            Err(refusal) if refusal.message.contains("does not exist") => tracing::info!("{refusal}"),
            result => result?,
        }
        self.wait_told(id, TOLD_WITHIN);
        rootfs::unmount_all(&bundle).map_err(anyhow::Error::from)?;
        let removed = self.tasks().containers.remove(id);
        self.wake();
        let Some(container) = removed else {
            return Err(Refusal::no_container(id));
        };
        let deleted = deleted(container.init.pid, container.init.exit);
        for process in container.execs.into_values().chain([container.init]) {
            for reply in process.waiting {
                reply.send(Err(Refusal::no_container(id)));
            }
            self.let_go(process.kept);
        }
        let event = messages::TaskDelete {
            container_id: id.to_owned(),
            pid: deleted.pid,
            exit_status: deleted.exit_status,
            exited_at: deleted.exited_at,
        };
        self.publish(id, "/tasks/delete", Any::new("containerd.events.TaskDelete", &event));
        Ok(deleted.encode_to_vec())
    }

    /// Sends a signal to a container, without executing a command.
    pub fn signal_container(
        &self,
        settings: &Settings,
        id: &str,
        signal: i32,
        all: bool,
    ) -> anyhow::Result<()> {
        life_cycle::signal(&Handle::peek(&self.globals(settings), id)?, signal, all)
    }
}

/// What has ended executes nothing more.
fn refuse_stopped(container: &Container) -> Result<(), Refusal> {
    match container.init.has_ended() {
        false => Ok(()),
        true => Err(Refusal::new(Code::FailedPrecondition, ContainerError::ExecStopped.to_string())),
    }
}

fn read_pid(file: &Path) -> Result<i32, Refusal> {
    let pid = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    pid.ok_or_else(|| {
        Refusal::new(Code::Unknown, format!("the runtime has written no PID to {}", file.display()))
    })
}

fn deleted(pid: i32, exit: Option<Exit>) -> Deleted {
    // What never ran is removed by SIGKILL.
    let exit = exit.unwrap_or(Exit { status: 137, at: SystemTime::now() });
    Deleted { pid: pid.unsigned_abs(), exit_status: exit.status, exited_at: Some(exit.at.into()) }
}
