//! `stockade events`.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use stockade_protocol::agent::ContainerEvent;

use crate::life_cycle::{ANSWERS_WITHIN, Handle, explain};
use crate::options::{self, Globals};
use crate::state::ContainerError;
use crate::stats::{CgroupFiles, Stats};
use crate::sys::deadline::Deadline;
use crate::sys::process::Pidfd;
use crate::text::json;
use crate::vm::agent::{ClientError, Events as Listener, call};

/// Largest number of messages that are read from a guest after its container has ended: a hostile guest could go on for
/// ever.
const LAST_WORDS: usize = 64;

/// Print a container's statistics and events as JSON lines.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade events --stats web | jq .data.memory.usage
  stockade events --interval 500ms web")]
pub struct Events {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
    /// Time between statistics
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = options::interval)]
    interval: Duration,
    /// Print the statistics once
    #[arg(long)]
    stats: bool,
}

/// One line of the output.
#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

impl Events {
    /// Prints the lines until the container ends, or until nobody reads them any more.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`], or why the agent does not answer.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let handle = Handle::peek(globals, &self.id)?;
        let relay = handle.relay()?.open().ok_or(ContainerError::NotRunning)?;
        let printed = if self.stats {
            print_stats(&handle)
        } else {
            let mut wait = handle.wait();
            let listener = Listener::open(handle.directory.as_fd(), handle.id.as_str(), &mut wait);
            watch(&handle, &relay, listener.map_err(explain)?, self.interval)
        };
        match printed {
            Err(error) if is_closed_pipe(&error) => Ok(()),
            result => result,
        }
    }
}

fn watch(handle: &Handle, relay: &Pidfd, listener: Listener, interval: Duration) -> anyhow::Result<()> {
    let mut listener = Some(listener);
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let stdout = io::stdout();
        let mut fds = vec![
            PollFd::new(relay.as_fd(), PollFlags::POLLIN),
            // poll(2) always reports that the reader of a pipe has left.
            PollFd::new(stdout.as_fd(), PollFlags::empty()),
        ];
        fds.extend(listener.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        // Rounded up: a wait that ends too early would only begin again.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            result => result?,
        };
        let ready = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
        let (ended, unread, news) = (ready(0), ready(1), ready(2));
        drop(fds);
        if unread {
            return Ok(());
        }
        if news || ended {
            hear(handle, &mut listener, if ended { LAST_WORDS } else { 1 })?;
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            if let Err(error) = print_stats(handle) {
                if is_closed_pipe(&error) {
                    return Err(error);
                }
                // The container may just have ended; then the relay's end shows it.
                tracing::debug!("{error:#}");
            }
            next = Instant::now() + interval;
        }
    }
}

/// Prints the agent's events, and closes the connection at its end.
fn hear(handle: &Handle, listener: &mut Option<Listener>, times: usize) -> anyhow::Result<()> {
    for _ in 0..times {
        let Some(open) = listener else { return Ok(()) };
        match open.receive() {
            Ok(events) if events.is_empty() => return Ok(()),
            Ok(events) => {
                for ContainerEvent::OutOfMemory { .. } in events {
                    print(&Line { r#type: "oom", id: handle.id.as_str(), data: None })?;
                }
            }
            Err(error) => {
                if !matches!(error, ClientError::Closed) {
                    tracing::warn!("{error}");
                }
                *listener = None;
            }
        }
    }
    Ok(())
}

fn print_stats(handle: &Handle) -> anyhow::Result<()> {
    let deadline = Deadline::within(ANSWERS_WITHIN);
    let files = handle.ask_by(deadline, call::CgroupFiles(handle.id.to_string())).map_err(explain)?;
    let data = Some(Stats::new(&CgroupFiles::new(files)));
    print(&Line { r#type: "stats", id: handle.id.as_str(), data })
}

fn print(line: &Line<'_>) -> anyhow::Result<()> {
    let mut text = json::compact(line)?;
    text.push('\n');
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
