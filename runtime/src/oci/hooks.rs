//! `hooks`: programs that callers have run at the steps of a container's life (runtime-spec config "POSIX-platform
//! Hooks").
//!
//! ```text
//!  create   prestart, createRuntime     on the host, when the relay has its namespaces
//!           createContainer             by the relay, in its namespaces, before the trees are cloned for the guest
//!  start    startContainer              by the agent, in the container
//!           poststart                   on the host, when the program runs
//!  delete   poststop                    on the host, when nothing else is left
//! ```
//!
//! A hook that fails before poststop fails its command, and the container is removed or killed.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use stockade_protocol::container;

use crate::sys::process::Pidfd;
use crate::sys::signals;

/// Largest part of a failed hook's output that is shown, in bytes.
const SHOWN: u64 = 1024;

/// How long `start` waits for a hook without a timeout.
const START_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Its JSON path.
    pub property: String,
    /// The program: absolute.
    pub path: String,
    /// Its arguments, the first of which is its name; empty for the path alone.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// Seconds after which it is killed and counts as failed.
    pub timeout_s: Option<u32>,
}

/// The hooks of a container, in the order in which they are run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// `prestart`, then `createRuntime`.
    pub create_runtime: Vec<Hook>,
    /// `createContainer`.
    pub create_container: Vec<Hook>,
    /// `startContainer`.
    pub start_container: Vec<Hook>,
    /// `poststart`.
    pub poststart: Vec<Hook>,
    /// `poststop`.
    pub poststop: Vec<Hook>,
}

/// A hook has failed.
#[derive(Debug, thiserror::Error)]
#[error("{property}: {path}: {problem}")]
pub struct HookError {
    property: String,
    path: String,
    problem: String,
}

impl Hooks {
    /// Whether there are hooks that run before the container is built.
    pub fn has_create(&self) -> bool {
        !(self.create_runtime.is_empty() && self.create_container.is_empty())
    }

    /// The hooks of `startContainer` in the agent's form.
    pub fn for_agent(&self, state: &str) -> Vec<container::Hook> {
        let hooks = self.start_container.iter().cloned();
        hooks
            .map(|Hook { path, args, env, timeout_s, .. }| container::Hook {
                path,
                args,
                env,
                timeout_s,
                state: state.to_owned(),
            })
            .collect()
    }

    /// How long `startContainer` may take.
    pub fn start_within(&self) -> Duration {
        let timeout = |hook: &Hook| hook.timeout_s.map_or(START_TIMEOUT, |s| Duration::from_secs(s.into()));
        self.start_container.iter().map(timeout).sum()
    }
}

/// Runs hooks one after the other in the bundle's directory, until one fails. With `while_open`, a hook is also ended
/// when that descriptor's other side closes.
///
/// # Errors
/// [`HookError`].
pub fn run(
    hooks: &[Hook],
    state: &str,
    bundle: &Path,
    while_open: Option<BorrowedFd<'_>>,
) -> Result<(), HookError> {
    hooks.iter().try_for_each(|hook| {
        run_one(hook, state, bundle, while_open).map_err(|problem| HookError {
            property: hook.property.clone(),
            path: hook.path.clone(),
            problem,
        })
    })
}

fn run_one(
    hook: &Hook,
    state: &str,
    bundle: &Path,
    while_open: Option<BorrowedFd<'_>>,
) -> Result<(), String> {
    let text = |cause: io::Error| cause.to_string();
    tracing::debug!("running {}: {}", hook.property, hook.path);
    // Files and not pipes: a hook that does not read its input, or that writes much, then needs no attention.
    let mut input = memory_file().map_err(text)?;
    let mut output = memory_file().map_err(text)?;
    input.write_all(state.as_bytes()).and_then(|()| input.rewind()).map_err(text)?;

    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    let variables = hook.env.iter().filter_map(|entry| entry.split_once('='));
    command.env_clear().envs(variables).current_dir(if bundle.is_dir() { bundle } else { Path::new("/") });
    command.stdin(input);
    command.stdout(output.try_clone().map_err(text)?).stderr(output.try_clone().map_err(text)?);
    // SAFETY: between fork and exec it makes two system calls and touches no memory of the parent's.
    unsafe { command.pre_exec(become_hook) };
    let mut child = command.spawn().map_err(text)?;
    let pidfd = Pidfd::open(child.id().cast_signed()).map_err(|errno| text(errno.into()))?;
    let timeout = hook.timeout_s.map(|seconds| Duration::from_secs(seconds.into()));
    let ended = wait(&pidfd, timeout, while_open);
    if !matches!(ended, Ok(true)) {
        // It fails only where the hook has ended just now.
        let _ = child.kill();
    }
    let status = child.wait().map_err(text)?;
    match ended.map_err(text)? {
        true if status.success() => Ok(()),
        true => Err(format!("{}{}", ending(status), shown(&mut output))),
        false => match timeout {
            Some(timeout) => Err(format!("has not ended within {} seconds", timeout.as_secs())),
            None => Err("was ended, because its container was given up".to_owned()),
        },
    }
}

/// Prepares the child for its program: no blocked signals, and SIGKILL when this process ends.
fn become_hook() -> io::Result<()> {
    signals::unblock_all()?;
    // SAFETY: this option takes an integer.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the hook has ended before the timeout, and before the other side has closed.
fn wait(pidfd: &Pidfd, timeout: Option<Duration>, while_open: Option<BorrowedFd<'_>>) -> io::Result<bool> {
    let timeout = timeout.map_or(PollTimeout::NONE, |t| PollTimeout::try_from(t).unwrap_or(PollTimeout::MAX));
    let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    // Only POLLHUP, which is always reported.
    fds.extend(while_open.map(|fd| PollFd::new(fd, PollFlags::empty())));
    loop {
        match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            result => {
                result?;
                return Ok(fds[0].any().unwrap_or(false));
            }
        }
    }
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with exit status {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}

/// The last part of what a hook has written.
fn shown(output: &mut File) -> String {
    let mut text = Vec::new();
    let read = output.metadata().and_then(|metadata| {
        output.seek(io::SeekFrom::Start(metadata.len().saturating_sub(SHOWN)))?;
        output.read_to_end(&mut text)
    });
    let text = String::from_utf8_lossy(&text);
    match (read, text.trim()) {
        (Ok(_), text) if !text.is_empty() => format!(": {text}"),
        _ => String::new(),
    }
}

fn memory_file() -> io::Result<File> {
    Ok(File::from(memfd_create(c"hook", MFdFlags::MFD_CLOEXEC)?))
}

#[cfg(test)]
#[path = "hooks_test.rs"]
mod tests;
