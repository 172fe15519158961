//! A command of the runtime from its begin to its error: as a fork of the shim, or executed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command as Program, Stdio};

use serde::Deserialize;

use super::command::Command;
use super::settings::Settings;
use super::stdio::Streams;
use super::tasks::Shim;
use super::wire::{Code, Refusal};

/// Largest part of a command's log that is read, in bytes.
const LIMIT: u64 = 64 << 10;

/// A line of the runtime's log.
#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

impl Shim {
    /// Has a command of the runtime carried out to its end, with these streams.
    ///
    /// # Errors
    /// The command's own error.
    pub fn execute(
        &'static self,
        settings: &Settings,
        log: &Path,
        command: Command<'_>,
        id: &str,
        streams: Option<Streams>,
    ) -> Result<(), Refusal> {
        let begin = fs::metadata(log).map_or(0, |metadata| metadata.len());
        let child = match &settings.binary {
            None => self.fork(settings, log, command, id, streams.as_ref()).map_err(|cause| {
                Refusal::new(
                    Code::ResourceExhausted,
                    format!("cannot fork a process for the runtime: {cause}"),
                )
            }),
            Some(binary) => self.execute_binary(binary, settings, log, command, id, streams.as_ref()),
        };
        // The streams are the relay's now: its end is theirs.
        drop(streams);
        let status = self.wait_for(child?, None);
        let error = report(log, begin);
        match status {
            Some(0) => Ok(()),
            Some(status) => {
                Err(refusal(&error.unwrap_or_else(|| {
                    format!("the runtime has ended with status {status}, and says nothing")
                })))
            }
            None => Err(Refusal::new(Code::Unknown, "the runtime's status was lost")),
        }
    }

    /// Executes the runtime as a child.
    fn execute_binary(
        &self,
        binary: &Path,
        settings: &Settings,
        log: &Path,
        command: Command<'_>,
        id: &str,
        streams: Option<&Streams>,
    ) -> Result<i32, Refusal> {
        let start = || -> io::Result<i32> {
            let mut program = program(binary, settings, log, self.arguments.debug);
            program.args(command.words(id));
            let stdio = |pick: fn(&Streams) -> &OwnedFd| -> io::Result<Stdio> {
                streams.map_or(Ok(Stdio::null()), |streams| Ok(pick(streams).try_clone()?.into()))
            };
            program
                .stdin(stdio(|streams| &streams.stdin)?)
                .stdout(stdio(|streams| &streams.stdout)?)
                .stderr(stdio(|streams| &streams.stderr)?);
            // SAFETY: between fork and exec it makes one system call, which touches no memory of the parent's. The thread that
            // starts the command waits for its end, so the signal comes only when the shim ends.
            unsafe {
                program.pre_exec(|| {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    Ok(())
                });
            }
            self.spawn(&mut program)
        };
        start().map_err(|cause| {
            let binary = binary.display();
            Refusal::new(Code::NotFound, format!("cannot execute the runtime {binary}: {cause}"))
        })
    }
}

/// A command of the runtime without its words.
fn program(binary: &Path, settings: &Settings, log: &Path, is_debug: bool) -> Program {
    let mut program = Program::new(binary);
    program.arg("--root").arg(&settings.root).arg("--log").arg(log).args(["--log-format", "json"]);
    if settings.systemd_cgroup {
        program.arg("--systemd-cgroup");
    }
    if is_debug {
        program.arg("--debug");
    }
    program
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
            "error" => error = Some(line.msg),
            "warning" => tracing::warn!("{}", line.msg),
            _ => {}
        }
    }
    error
}

/// The answer to containerd, whose clients tell errors apart by a code: from the words that callers of runc know.
pub fn refusal(message: &str) -> Refusal {
    let code = if message.contains("does not exist") || message.contains("not running") {
        Code::NotFound
    } else if message.contains("container with id exists") {
        Code::AlreadyExists
    } else {
        Code::Unknown
    };
    Refusal::new(code, message)
}
