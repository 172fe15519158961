//! `hooks.startContainer`: run by the init between its start and its program, with everything that the program will
//! have, except a seccomp filter that is loaded last.

use std::{
    convert::Infallible,
    ffi::CString,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::fd::AsFd,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, execve, fork},
};
use stockade_protocol::container::Hook;
use stockade_sys::pidfd::Pidfd;

use super::c_strings;
use crate::error::{Context, ErrorKind, Result, error, reason};

/// Largest part of a failed hook's output that is reported, in bytes.
const SHOWN: u64 = 1024;

/// Runs the hooks one after the other, until one fails. A hook without an environment of its own gets the program's, as
/// with runc.
pub fn run(hooks: &[Hook], env: &[CString]) -> Result<()> {
    hooks.iter().enumerate().try_for_each(|(index, hook)| {
        let name = format!("hooks.startContainer[{index}]");
        let step = || format!("{name}: {}", hook.path);
        // Files and not pipes: a hook that does not read its input, or that writes much, then needs no attention.
        let mut input = memory_file().or_internal(step)?;
        input.write_all(hook.state.as_bytes()).and_then(|()| input.rewind()).or_internal(step)?;
        let mut output = memory_file().or_internal(step)?;
        let child = spawn(&name, hook, env, &input, &output)?;
        match wait(child, hook.timeout_s).or_internal(step)? {
            Ending::Success => Ok(()),
            Ending::Failure(how) => {
                Err(error(ErrorKind::Spec, format!("{}: {how}{}", step(), shown(&mut output))))
            }
        }
    })
}

fn spawn(name: &str, hook: &Hook, env: &[CString], input: &File, output: &File) -> Result<Pid> {
    let path = c_strings(name, std::slice::from_ref(&hook.path))?;
    let args = if hook.args.is_empty() { path.clone() } else { c_strings(name, &hook.args)? };
    let env = if hook.env.is_empty() { env.to_vec() } else { c_strings(name, &hook.env)? };
    // SAFETY: this process has one thread.
    match unsafe { fork() }.or_internal(|| format!("{name}: fork"))? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let Err(errno) = execute(&path[0], &args, &env, input, output);
            // The exit status tells of the failure even if its reason cannot be written.
            let _ = write!({ output }, "{}", reason(errno));
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(127) }
        }
    }
}

fn execute(
    path: &CString,
    args: &[CString],
    env: &[CString],
    input: &File,
    output: &File,
) -> Result<Infallible, Errno> {
    dup2_stdin(input)?;
    dup2_stdout(output)?;
    dup2_stderr(output)?;
    execve(path, args, env)
}

enum Ending {
    Success,
    Failure(String),
}

/// Waits for a hook's end, and kills the hook when its time is over.
fn wait(child: Pid, timeout_s: Option<u32>) -> Result<Ending, Errno> {
    let milliseconds = |seconds: u32| u64::from(seconds) * 1000;
    let timeout = timeout_s
        .map_or(PollTimeout::NONE, |s| PollTimeout::try_from(milliseconds(s)).unwrap_or(PollTimeout::MAX));
    let pidfd = Pidfd::open(child.as_raw())?;
    let ended = loop {
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            ready => break ready? > 0,
        }
    };
    if !ended {
        kill(child, Signal::SIGKILL)?;
    }
    Ok(match waitpid(child, None)? {
        _ if !ended => {
            Ending::Failure(format!("has not ended within {} seconds", timeout_s.unwrap_or_default()))
        }
        WaitStatus::Exited(_, 0) => Ending::Success,
        WaitStatus::Exited(_, status) => Ending::Failure(format!("failed with exit status {status}")),
        WaitStatus::Signaled(_, signal, _) => Ending::Failure(format!("was ended by {signal}")),
        other => Ending::Failure(format!("ended with {other:?}")),
    })
}

/// The last part of what a hook has written.
fn shown(output: &mut File) -> String {
    let mut text = Vec::new();
    let start = output.metadata().map(|metadata| metadata.len().saturating_sub(SHOWN)).unwrap_or_default();
    // What cannot be read is not shown.
    let _ = output.seek(SeekFrom::Start(start)).and_then(|_| output.take(SHOWN).read_to_end(&mut text));
    match String::from_utf8_lossy(&text).trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

fn memory_file() -> Result<File, Errno> {
    memfd_create(c"hook", MFdFlags::MFD_CLOEXEC).map(File::from)
}

#[cfg(test)]
#[path = "start_hooks_test.rs"]
mod tests;
