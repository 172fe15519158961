//! The runtime's commands that make and remove processes, each in a process of its own: they need one with a single thread.
//!
//! ```text
//!   BinaryName is given, or an upgrade has taken the shim's file away      the runtime is executed
//!   otherwise                                                              the shim forks, and the fork does what `stockade` would
//! ```
//!
//! A fork has the shim's memory, which is all about one pod, and nothing else of it: one thread, the streams of the command, no other
//! descriptor, no signal that is blocked, a log and a name of its own.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::parent_id;
use std::path::Path;

use stockade_sys::descriptors::close_all_but;

use super::settings::Settings;
use super::stdio::Streams;
use super::tasks::Shim;
use crate::commands::exit_status::exit_status;
use crate::commands::{create, exec};
use crate::life_cycle::{self, Handle, Request};
use crate::log;
use crate::oci::container_id::ContainerId;
use crate::options::{Globals, LogFormat};
use crate::state::{ContainerError, Root};
use crate::sys::{descriptors, process, signals};

/// The runtime's name, as its processes show it.
const NAME: &str = "stockade";

/// Status of a fork that could not become a command.
const CANNOT_BEGIN: i32 = 125;

/// A command of the runtime.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// `create` or `exec`.
    Make(New<'a>, Told<'a>),
    Start,
    Delete,
}

/// What is made.
#[derive(Clone, Copy, Debug)]
pub enum New<'a> {
    /// A container's first process, by the bundle's directory.
    Init { bundle: &'a Path },
    /// Another process, by the file that describes it.
    Exec { process: &'a Path },
}

/// Where a command that makes a process tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub pid_file: &'a Path,
    pub console_socket: Option<&'a Path>,
}

impl<'a> Command<'a> {
    /// Its command line, without the options of every command.
    pub fn words(self, id: &'a str) -> Vec<&'a OsStr> {
        let word = OsStr::new;
        let mut words = match self {
            Self::Make(New::Init { bundle }, _) => vec![word("create"), word("--bundle"), bundle.as_ref()],
            Self::Make(New::Exec { process }, _) => {
                vec![word("exec"), word("--detach"), word("--process"), process.as_ref()]
            }
            Self::Start => vec![word("start")],
            Self::Delete => vec![word("delete")],
        };
        if let Self::Make(_, Told { pid_file, console_socket }) = self {
            words.extend([word("--pid-file"), pid_file.as_ref()]);
            words.extend(
                console_socket.into_iter().flat_map(|socket| [word("--console-socket"), socket.as_ref()]),
            );
        }
        words.push(id.as_ref());
        words
    }

    /// Does its work. This process has one thread.
    fn run(self, globals: &Globals, id: &str) -> anyhow::Result<()> {
        match self {
            Self::Make(New::Init { bundle }, told) => create::create(&Request {
                globals,
                id: &id.parse::<ContainerId>()?,
                bundle,
                config: None,
                pid_file: Some(told.pid_file),
                console_socket: told.console_socket,
                pidfd_socket: None,
                preserve_fds: 0,
                detached: true,
            }),
            Self::Make(New::Exec { process }, told) => {
                let exec = exec::Exec::detached(id, process, told.pid_file, told.console_socket);
                exec.run(globals).map(drop)
            }
            Self::Start => start(&Handle::lock(globals, id)?),
            Self::Delete => life_cycle::remove(&Root::new(globals.root.as_deref()), &id.parse()?, false),
        }
    }
}

impl Shim {
    /// Forks a child that does a command's work, and that the calling thread waits for; the result is its PID.
    ///
    /// # Errors
    /// fork(2)'s.
    pub fn fork(
        &self,
        settings: &Settings,
        log: &Path,
        command: Command<'_>,
        id: &str,
        streams: Option<&Streams>,
    ) -> io::Result<i32> {
        let shim = std::process::id();
        let globals =
            Globals { log: Some(log.to_owned()), log_format: LogFormat::Json, ..self.globals(settings) };
        let body = || match become_command(shim, streams) {
            Ok(()) => carry_out(&globals, command, id),
            Err(_) => CANNOT_BEGIN,
        };
        // SAFETY: commands take no lock of the shim's, and what else its threads wait for is read when it starts (`server.rs`). The
        // child never returns to what the shim has on its stack.
        self.begin(|| unsafe { process::fork(body) })
    }

    /// Starts a container in this thread, if that makes no process; false if it would.
    ///
    /// # Errors
    /// Those of `start`.
    pub fn start_here(&self, settings: &Settings, id: &str) -> anyhow::Result<bool> {
        let handle = Handle::lock(&self.globals(settings), id)?;
        let record = &handle.record;
        // A sandbox may have a network to follow and a template to be made.
        if record.sandbox.is_none() || !record.hooks.poststart.is_empty() {
            return Ok(false);
        }
        start(&handle).map(|()| true)
    }
}

fn start(handle: &Handle) -> anyhow::Result<()> {
    handle.relay().map_err(|_| ContainerError::HasStopped)?;
    life_cycle::start(&handle.directory, &handle.record, &mut handle.wait())
}

/// In a fork of the shim: takes on what a program begins with that is executed.
fn become_command(shim: u32, streams: Option<&Streams>) -> io::Result<()> {
    // The thread that has forked waits for the end, so the signal comes only when the shim ends.
    // SAFETY: prctl takes integers here.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if parent_id() != shim {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    // The shim's own are the null device.
    if let Some(Streams { stdin, stdout, stderr }) = streams {
        for (number, stream) in [(0, stdin), (1, stdout), (2, stderr)] {
            descriptors::become_stdio(stream, number)?;
        }
    }
    // SAFETY: what is closed belongs to the shim's part of the stack, which a fork never returns to.
    unsafe { close_all_but(libc::STDERR_FILENO + 1, &[]) }?;
    signals::unblock_all()
}

/// In a fork: does what `stockade` would, and returns its exit status.
fn carry_out(globals: &Globals, command: Command<'_>, id: &str) -> i32 {
    let words = [OsStr::new(NAME)].into_iter().chain(command.words(id));
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    // Without CAP_SYS_RESOURCE `ps` shows the shim's name, which does no harm.
    let _ = process::set_command_line(NAME, &words);
    match log::start_in_fork(globals).and_then(|()| command.run(globals, id)) {
        Ok(()) => 0,
        Err(error) => {
            log::report(&error);
            exit_status(&error).into()
        }
    }
}
