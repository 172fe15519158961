//! `stockade exec`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process};

use crate::commands::exit_status::ExecFailed;
use crate::config::Config;
use crate::life_cycle::{self, Exec as Request, Handle};
use crate::lower;
use crate::lower::security_labels::{self, Policies, Selinux};
use crate::oci::bundle;
use crate::oci::users;
use crate::options::Globals;
use crate::relay::preserve_fds::Preserved;

/// Execute another process in a container.
#[derive(Debug, Default, Args)]
#[command(
    after_help = "Without --process, the new process is the `process` of config.json with another command and with the \
changes that the options make.

Examples:
  stockade exec mine ps
  stockade exec --tty --user 1000:1000 --env TERM=xterm mine sh
  stockade exec --process process.json --detach --pid-file pid mine"
)]
pub struct Exec {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
    /// Program and its arguments; options after the program belong to the program
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// File with the whole process as JSON, in the form of `process` in config.json
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Environment variable to set; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// User and group: numbers, or names of the container's /etc/passwd and /etc/group
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Additional group; may be given several times
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// Capability to add; may be given several times. It is not added to the inheritable set
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// Set no_new_privs
    #[arg(long)]
    no_new_privs: bool,
    /// Return once the process runs
    #[arg(short, long)]
    detach: bool,
    /// File to write the process's PID to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Socket to send the terminal's master to
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Socket to send a pidfd of the process to
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Cgroup in which the process begins: one below the container's, or / for the container's own; it must exist and
    /// accept processes
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// If the container is paused, wait until it is resumed
    #[arg(long)]
    ignore_paused: bool,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Pass descriptors 3 to 2+N into the container: pipes, stream sockets, terminals, /dev/null, and the content of
    /// regular files
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// No effect: stockade never is a subreaper
    #[arg(long)]
    no_subreaper: bool,
}

impl Exec {
    /// The command for a process that outlives it, and that a file in the form of config.json's `process` describes.
    pub fn detached(id: &str, process: &Path, pid_file: &Path, console_socket: Option<&Path>) -> Self {
        Self {
            id: id.to_owned(),
            process: Some(process.to_owned()),
            pid_file: Some(pid_file.to_owned()),
            console_socket: console_socket.map(Path::to_owned),
            detach: true,
            ..Self::default()
        }
    }

    /// Executes the process; the exit status is the process's, 128+n after signal n.
    ///
    /// # Errors
    /// [`ExecFailed`] with its cause; nothing of the process is left then.
    pub fn run(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        self.execute(globals).context(ExecFailed)
    }

    fn execute(self, globals: &Globals) -> anyhow::Result<ExitCode> {
        self.mention_unused();
        let handle = Handle::peek(globals, &self.id)?;
        let mut warnings = Vec::new();
        let process = self.process(&handle, &mut warnings)?;
        let policies = match process.apparmor_profile() {
            Some(_) => Config::load()?.apparmor_policies,
            None => Vec::new(),
        };
        let policies =
            Policies { apparmor: &policies, selinux: Selinux::of_record(handle.record.selinux.as_deref()) };
        let annotations = &handle.record.annotations;
        let host_label = security_labels::of_host(Some(&process), Some(annotations))?;
        let (process, labels) = lower::lower_process(&process, annotations, policies, &mut warnings)?;
        let preserved = Preserved::take(self.preserve_fds)?;
        warnings.extend(preserved.warnings());
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let cgroup = self.cgroup.as_deref().map(|path| path.trim_matches('/').to_owned());
        let executed = life_cycle::exec(&Request {
            handle: &handle,
            container: handle.id.as_str(),
            process,
            labels,
            host_label,
            cgroup,
            ignore_paused: self.ignore_paused,
            pid_file: self.pid_file.as_deref(),
            console_socket: self.console_socket.as_deref(),
            pidfd_socket: self.pidfd_socket.as_deref(),
            preserved,
            detached: self.detach,
        })?;
        if self.detach {
            executed.relay.commit_started().context("cannot leave the process running")?;
            return Ok(ExitCode::SUCCESS);
        }
        let status = life_cycle::attend(&executed.signals, &executed.relay.process)?;
        drop(executed.raw);
        Ok(ExitCode::from(status))
    }

    fn mention_unused(&self) {
        if self.no_subreaper {
            tracing::debug!("--no-subreaper has no effect");
        }
    }

    /// The process to execute, in the form of config.json.
    fn process(&self, handle: &Handle, warnings: &mut Vec<String>) -> anyhow::Result<Process> {
        if let Some(path) = &self.process {
            if !self.command.is_empty() {
                anyhow::bail!("--process: the file names the command; do not give another one");
            }
            let mut process = read_process(path, warnings)?;
            complete(&mut process, handle.directory.read_process()?);
            if self.tty {
                process.set_terminal(Some(true));
            }
            if process.capabilities().is_none() {
                process.set_capabilities(handle.directory.read_process()?.capabilities().clone());
            }
            return Ok(process);
        }
        if self.command.is_empty() {
            anyhow::bail!("exec needs a command, or --process with a file that names one");
        }
        let mut process = handle.directory.read_process()?;
        self.change(&mut process, &handle.record.rootfs)?;
        Ok(process)
    }

    fn change(&self, process: &mut Process, rootfs: &Path) -> anyhow::Result<()> {
        process.set_args(Some(self.command.clone()));
        process.set_terminal(Some(self.tty));
        process.set_console_size(None);
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.clone());
        }
        let env = process.env().clone().unwrap_or_default();
        process.set_env(Some(with_variables(env, &self.env)));
        if let Some(user) = &self.user {
            let ids = users::resolve(rootfs, user).with_context(|| format!("--user {user}"))?;
            let user = process.user_mut();
            user.set_uid(ids.uid);
            if let Some(gid) = ids.gid {
                user.set_gid(gid);
            }
        }
        if !self.additional_gids.is_empty() {
            let mut gids = process.user().additional_gids().clone().unwrap_or_default();
            gids.extend(&self.additional_gids);
            process.user_mut().set_additional_gids(Some(gids));
        }
        if !self.cap.is_empty() {
            let added = self.cap.iter().map(|name| capability(name)).collect::<anyhow::Result<_>>()?;
            process.set_capabilities(Some(with_capabilities(process.capabilities().as_ref(), &added)));
        }
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        if self.process_label.is_some() {
            process.set_selinux_label(self.process_label.clone());
        }
        if self.apparmor.is_some() {
            process.set_apparmor_profile(self.apparmor.clone());
        }
        Ok(())
    }
}

fn read_process(path: &Path, warnings: &mut Vec<String>) -> anyhow::Result<Process> {
    let text = bundle::read(path).with_context(|| format!("--process: cannot read {}", path.display()))?;
    bundle::parse_process(&text, warnings)
        .map_err(|problem| anyhow::anyhow!("--process: {}: {problem}", path.display()))
}

/// Fills in from config.json what the file leaves out, as runc does: limits of the container are limits of every
/// process in it.
fn complete(process: &mut Process, config: Process) {
    let is_none = |list: &Option<Vec<_>>| list.as_ref().is_none_or(Vec::is_empty);
    if is_none(process.rlimits()) {
        process.set_rlimits(config.rlimits().clone());
    }
    if process.capabilities().is_none() {
        process.set_capabilities(config.capabilities().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(config.oom_score_adj());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(config.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*config.io_priority());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(config.exec_cpu_affinity().clone());
    }
    let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
    if is_empty(process.apparmor_profile()) {
        process.set_apparmor_profile(config.apparmor_profile().clone());
    }
    if is_empty(process.selinux_label()) {
        process.set_selinux_label(config.selinux_label().clone());
    }
}

/// Adds variables so that each is there once: if one is there twice, programs read the first.
fn with_variables(mut env: Vec<String>, changes: &[String]) -> Vec<String> {
    for change in changes {
        let name = change.split_inclusive('=').next().unwrap_or(change);
        env.retain(|entry| !entry.starts_with(name));
        env.push(change.clone());
    }
    env
}

/// `CAP_CHOWN`, `CHOWN` or `chown`.
fn capability(name: &str) -> anyhow::Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    serde_json::from_value(full.into()).map_err(|_| anyhow::anyhow!("--cap: {name:?} is not a capability"))
}

/// Adds capabilities to the bounding, effective and permitted sets. The inheritable set stays as it is: a program with
/// inheritable capabilities in its file would get more than the container was given. So capabilities become ambient,
/// for other users, only if config.json has made them inheritable.
fn with_capabilities(sets: Option<&LinuxCapabilities>, added: &Capabilities) -> LinuxCapabilities {
    let mut sets = sets.cloned().unwrap_or_default();
    let with = |set: &Option<Capabilities>| Some(set.iter().flatten().chain(added).copied().collect());
    let is_inheritable =
        |capability: &&Capability| sets.inheritable().as_ref().is_some_and(|set| set.contains(*capability));
    let ambient =
        sets.ambient().iter().flatten().chain(added.iter().filter(is_inheritable)).copied().collect();
    sets.set_bounding(with(sets.bounding()));
    sets.set_effective(with(sets.effective()));
    sets.set_permitted(with(sets.permitted()));
    sets.set_ambient(Some(ambient));
    sets
}

#[cfg(test)]
#[path = "exec_test.rs"]
mod tests;
