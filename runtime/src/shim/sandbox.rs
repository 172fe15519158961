//! The methods of containerd's sandbox API, which containerd 2 calls where the runtime's `sandboxer` is `shim`: the shim makes the
//! pod's sandbox without an image.
//!
//! To the runtime, and so to `stockade list`, such a sandbox is a container like any other, whose program only waits. containerd
//! has no task of that name, and hears no events of one.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use prost::Message;
use serde_json::json;

use super::messages::{CreateTask, Name, Request};
use super::sandbox_messages::{
    CreateSandbox, Metric, Platform, PlatformAnswer, SandboxMetrics, SandboxName, SandboxStarted,
    SandboxStatus, SandboxStatusRequest, StopSandbox,
};
use super::tasks::{Phase, Sandbox, Shim};
use super::wire::{Answer, Code, Refusal, Reply, read};
use super::{STACK, metrics, pod_bundle, pod_config};
use crate::life_cycle::Handle;
use crate::oci::bundle::CONFIG;
use crate::state::ContainerError;

/// The name of the service.
pub const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// How long the end of a pod may take where the caller does not say it.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// The states of the CRI.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

impl Shim {
    /// Answers a request of the sandbox API, now or later.
    pub fn serve_sandbox(&'static self, request: Request, reply: Reply) {
        let payload = request.payload;
        match request.method.as_str() {
            "Platform" => reply.send(read(&payload).and_then(|name| self.platform(&name))),
            "PingSandbox" => {
                reply.send(read(&payload).and_then(|name| self.sandbox(&name).map(|_| Vec::new())));
            }
            "SandboxStatus" => {
                reply.send(read(&payload).and_then(|request| self.sandbox_status(&request)));
            }
            "WaitSandbox" => self.wait_sandbox(&payload, reply),
            "CreateSandbox" => self.later(reply, payload, Self::create_sandbox),
            "StartSandbox" => self.later(reply, payload, Self::start_sandbox),
            "StopSandbox" => self.later(reply, payload, Self::stop_sandbox),
            "SandboxMetrics" => self.later(reply, payload, Self::sandbox_metrics),
            "ShutdownSandbox" => self.shutdown_sandbox(payload, reply),
            method => reply.send(Err(Refusal::no_method(method))),
        }
    }

    /// The sandbox, if this is its name.
    fn sandbox(&self, name: &SandboxName) -> Result<&Sandbox, Refusal> {
        let found = self.sandbox.get().filter(|sandbox| sandbox.id == name.sandbox_id);
        found.ok_or_else(|| {
            Refusal::new(Code::NotFound, format!("sandbox {:?} does not exist in this shim", name.sandbox_id))
        })
    }

    /// The sandbox of a container whose annotations name this one, if containerd has made it by the sandbox API.
    pub fn sandbox_of(&self, id: &str, group: &str) -> Option<&Sandbox> {
        self.sandbox.get().filter(|sandbox| sandbox.id == group && id != group)
    }

    /// Whether this is the sandbox's own container, of which containerd knows no task.
    pub fn is_no_task(&self, id: &str) -> bool {
        self.sandbox.get().is_some_and(|sandbox| sandbox.id == id)
    }

    fn create_sandbox(&'static self, request: CreateSandbox) -> Answer {
        let invalid = |message: String| Refusal::new(Code::InvalidArgument, message);
        let id = &request.sandbox_id;
        if *id != self.arguments.id {
            return Err(invalid(format!("sandbox {id:?}: this shim is for {:?}", self.arguments.id)));
        }
        let exists = || Refusal::new(Code::AlreadyExists, format!("sandbox {id:?} exists"));
        if self.sandbox.get().is_some() {
            return Err(exists());
        }
        if !request.rootfs.is_empty() {
            return Err(invalid(format!(
                "sandbox {id:?} has a root file system, which a VM of stockade does not need: give none"
            )));
        }
        let bundle = Path::new(&request.bundle_path);
        if bundle.join(CONFIG).exists() {
            return Err(invalid(format!(
                "sandbox {id:?} has a specification, {}, which this shim makes itself: give none",
                bundle.join(CONFIG).display()
            )));
        }
        let config =
            pod_config::parse(request.options.as_ref()).map_err(|error| invalid(format!("{error:#}")))?;
        let sandbox = Sandbox { id: id.clone(), bundle: bundle.to_owned(), created: SystemTime::now() };
        if self.sandbox.set(sandbox).is_err() {
            return Err(exists());
        }
        pod_bundle::write(bundle, id, &config, Path::new(&request.netns_path))?;
        self.create(CreateTask {
            id: id.clone(),
            bundle: request.bundle_path.clone(),
            options: self.options.clone(),
            ..CreateTask::default()
        })?;
        Ok(Vec::new())
    }

    fn start_sandbox(&'static self, name: SandboxName) -> Answer {
        let created = self.sandbox(&name)?.created;
        self.start(Name { id: name.sandbox_id.clone(), exec_id: String::new() })?;
        let pid = self.tasks().process(&name.sandbox_id, "")?.pid.unsigned_abs();
        Ok(SandboxStarted { pid, created_at: Some(created.into()) }.encode_to_vec())
    }

    fn platform(&self, name: &SandboxName) -> Answer {
        self.sandbox(name)?;
        let platform = Platform { os: "linux".to_owned(), architecture: "amd64".to_owned() };
        Ok(PlatformAnswer { platform: Some(platform) }.encode_to_vec())
    }

    fn wait_sandbox(&self, payload: &[u8], reply: Reply) {
        let name = read(payload).and_then(|name: SandboxName| self.sandbox(&name).map(|_| name));
        let name = match name {
            Ok(name) => name,
            Err(refusal) => return reply.send(Err(refusal)),
        };
        let mut tasks = self.tasks();
        let exit = tasks.of_sandbox;
        let answer = match tasks.process(&name.sandbox_id, "") {
            Ok(process) => match process.exit {
                Some(exit) => Ok(exit.answer()),
                None => return process.waiting.push(reply),
            },
            Err(refusal) => exit.map(|exit| exit.answer()).ok_or(refusal),
        };
        drop(tasks);
        reply.send(answer);
    }

    fn sandbox_status(&self, request: &SandboxStatusRequest) -> Answer {
        let sandbox = self.sandbox(&SandboxName { sandbox_id: request.sandbox_id.clone() })?;
        let (pid, exit, settings) = {
            let mut tasks = self.tasks();
            let gone = tasks.of_sandbox;
            match tasks.containers.get_mut(&sandbox.id) {
                Some(container) => {
                    let init = &container.init;
                    let runs = init.phase == Phase::Started && !init.has_ended();
                    (runs.then_some(init.pid.unsigned_abs()), init.exit, Some(container.settings.clone()))
                }
                None => (None, gone, None),
            }
        };
        let mut info = BTreeMap::new();
        if request.verbose {
            let status = if pid.is_some() { "running" } else { "stopped" };
            info.insert(
                "info".to_owned(),
                json!({ "pid": pid.unwrap_or(0), "processStatus": status }).to_string(),
            );
            if let Some(settings) = settings {
                let own = json!({ "root": settings.root, "runtime": settings.binary });
                info.insert("stockade".to_owned(), own.to_string());
            }
        }
        let status = SandboxStatus {
            sandbox_id: sandbox.id.clone(),
            pid: pid.unwrap_or(0),
            state: if pid.is_some() { READY } else { NOT_READY }.to_owned(),
            info,
            created_at: Some(sandbox.created.into()),
            exited_at: exit.map(|exit| exit.at.into()),
        };
        Ok(status.encode_to_vec())
    }

    fn stop_sandbox(&'static self, request: StopSandbox) -> Answer {
        let sandbox = self.sandbox(&SandboxName { sandbox_id: request.sandbox_id })?;
        let within = match request.timeout_secs {
            0 => ENDS_WITHIN,
            seconds => Duration::from_secs(seconds.into()),
        };
        self.end_sandbox(&sandbox.id, within)?;
        Ok(Vec::new())
    }

    /// Ends the VM, and removes the sandbox's container; that of a sandbox that has ended before, too.
    fn end_sandbox(&'static self, id: &str, within: Duration) -> Result<(), Refusal> {
        let (settings, runs) = {
            let mut tasks = self.tasks();
            // It has been removed, or never was made.
            let Ok(container) = tasks.container(id) else { return Ok(()) };
            (container.settings.clone(), !container.init.has_ended())
        };
        if runs {
            match self.signal_container(&settings, id, libc::SIGKILL, true) {
                Err(error) if !matches!(error.downcast_ref(), Some(ContainerError::NotRunning)) => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        self.wait_told(id, within);
        {
            let mut tasks = self.tasks();
            let exit = tasks.process(id, "").map(|process| process.exit);
            match exit {
                Ok(None) => {
                    let message = format!("sandbox {id:?} does not end within {within:?}");
                    return Err(Refusal::new(Code::DeadlineExceeded, message));
                }
                Ok(exit) => tasks.of_sandbox = exit,
                // Another request has removed it meanwhile.
                Err(_) => return Ok(()),
            }
        }
        match self.remove(id) {
            Err(refusal) if refusal.code != Code::NotFound => Err(refusal),
            _ => Ok(()),
        }
    }

    /// Ends the shim, after the answer, with all that it has.
    fn shutdown_sandbox(&'static self, payload: Vec<u8>, reply: Reply) {
        let refused = reply.clone();
        let body = move || {
            let answer = read(&payload).and_then(|name| self.remove_all(&name));
            let is_over = answer.is_ok();
            reply.send(answer);
            if is_over {
                self.tasks().is_over = true;
                self.wake();
            }
        };
        if let Err(cause) = thread::Builder::new().stack_size(STACK).spawn(body) {
            refused.send(Err(Refusal::no_thread(&cause)));
        }
    }

    fn remove_all(&'static self, name: &SandboxName) -> Answer {
        if name.sandbox_id != self.arguments.id {
            let message = format!("sandbox {:?} does not exist in this shim", name.sandbox_id);
            return Err(Refusal::new(Code::NotFound, message));
        }
        self.end_sandbox(&name.sandbox_id, ENDS_WITHIN)?;
        // A CRI plug-in has removed them before.
        let members: Vec<String> = self.tasks().containers.keys().cloned().collect();
        for id in members {
            self.wait_told(&id, ENDS_WITHIN);
            self.remove(&id)?;
        }
        Ok(Vec::new())
    }

    fn sandbox_metrics(&'static self, name: SandboxName) -> Answer {
        let sandbox = self.sandbox(&name)?;
        let settings = self.tasks().container(&sandbox.id)?.settings.clone();
        let handle = Handle::peek(&self.globals(&settings), &sandbox.id)?;
        let cgroup = handle.record.cgroup.as_ref().ok_or_else(|| {
            let message = format!("sandbox {:?} has no cgroup on the host: there are no figures", sandbox.id);
            Refusal::new(Code::FailedPrecondition, message)
        })?;
        let metric = Metric {
            timestamp: Some(SystemTime::now().into()),
            id: sandbox.id.clone(),
            data: Some(metrics::of(&metrics::of_directory(&cgroup.path))),
        };
        Ok(SandboxMetrics { metrics: Some(metric) }.encode_to_vec())
    }
}
