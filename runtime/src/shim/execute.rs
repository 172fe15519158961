//! Executing the runtime: its commands that make processes are executed, because they need a process of their own with one
//! thread.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::settings::Settings;
use super::stdio::Streams;
use super::tasks::Shim;
use super::wire::{Code, Refusal};
use crate::text::table::printable;

/// Largest part of a command's log that is read, in bytes.
const LIMIT: u64 = 64 << 10;

/// A line of the runtime's log.
#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

impl Shim {
    /// Executes a command of the runtime to its end, with these streams.
    ///
    /// # Errors
    /// The command's own error.
    pub fn execute<'a>(
        &'static self,
        settings: &Settings,
        log: &Path,
        words: impl IntoIterator<Item = &'a OsStr>,
        streams: Option<Streams>,
    ) -> Result<(), Refusal> {
        let begin = fs::metadata(log).map_or(0, |metadata| metadata.len());
        let mut command = command(settings, log, self.arguments.debug);
        command.args(words);
        match streams {
            Some(Streams { stdin, stdout, stderr }) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
            }
            None => {
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        // SAFETY: between fork and exec it makes one system call, which touches no memory of the parent's. The thread that
        // starts the command waits for its end, so the signal comes only when the shim ends.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let started = self.spawn(&mut command);
        // The streams are the relay's now: its end is theirs.
        drop(command);
        let child = started.map_err(|cause| {
            let binary = settings.binary.display();
            Refusal::new(Code::NotFound, format!("cannot execute the runtime {binary}: {cause}"))
        })?;
        let status = self.wait_for(child, None);
        let error = report(log, begin);
        match status {
            Some(0) => Ok(()),
            Some(status) => {
                let message = error.unwrap_or_else(|| {
                    format!("the runtime has ended with status {status}, and says nothing")
                });
                Err(Refusal::new(code(&message), message))
            }
            None => Err(Refusal::new(Code::Unknown, "the runtime's status was lost")),
        }
    }
}

/// A command of the runtime without its words.
fn command(settings: &Settings, log: &Path, is_debug: bool) -> Command {
    let mut command = Command::new(&settings.binary);
    command.arg("--root").arg(&settings.root).arg("--log").arg(log).args(["--log-format", "json"]);
    if settings.systemd_cgroup {
        command.arg("--systemd-cgroup");
    }
    if is_debug {
        command.arg("--debug");
    }
    command
}

/// Passes warnings on to containerd's log; the result is the last error.
fn report(log: &Path, begin: u64) -> Option<String> {
    let read = || {
        let mut file = File::open(log)?;
        file.seek(SeekFrom::Start(begin))?;
        let mut text = Vec::new();
        file.take(LIMIT).read_to_end(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read().unwrap_or_default();
    let mut error = None;
    for line in text.split(|byte| *byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<Line>(line) else { continue };
        match line.level.as_str() {
            "error" => error = Some(printable(&line.msg)),
            "warning" => tracing::warn!("{}", line.msg),
            _ => {}
        }
    }
    error
}

/// The code by which containerd's clients tell errors apart, from the words that callers of runc know.
fn code(message: &str) -> Code {
    if message.contains("does not exist") || message.contains("not running") {
        Code::NotFound
    } else if message.contains("container with id exists") {
        Code::AlreadyExists
    } else {
        Code::Unknown
    }
}
