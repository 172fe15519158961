//! `stockade metrics`.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;

use crate::life_cycle::{Handle, for_each};
use crate::metrics::{self, Reach, Sandbox, Subject};
use crate::options::Globals;
use crate::state::{ContainerError, Directory, Record, Root};
use crate::sys::deadline::Deadline;
use crate::sys::descriptors;
use crate::vm::{AGENT_SOCKET, Control};

/// How long a VM may take to answer before its metrics are left out.
const WITHIN: Duration = Duration::from_secs(2);

/// Print what sandboxes and their containers use, for Prometheus.
#[derive(Debug, Args)]
#[command(
    after_help = "The text has the OpenMetrics format. Each sandbox serves its own metrics on the UNIX socket ROOT/ID/metrics.sock, for GET \
/metrics over HTTP: curl --unix-socket /run/stockade/web/metrics.sock http://web/metrics

Examples:
  stockade metrics
  stockade metrics web"
)]
pub struct Metrics {
    /// ID of a sandbox or a stand-alone container; without it, the metrics of all are printed
    #[arg(value_name = "ID")]
    id: Option<String>,
}

impl Metrics {
    /// Prints the metrics.
    ///
    /// # Errors
    /// When the container does not exist, has no VM of its own, or has ended.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let sandboxes = match &self.id {
            Some(id) => {
                let handle = Handle::peek(globals, id)?;
                if let Some(sandbox) = &handle.record.sandbox {
                    anyhow::bail!(
                        "container {id} is in the VM of sandbox {sandbox}, whose metrics include it"
                    );
                }
                handle.relay()?;
                vec![measure(&handle.directory, &handle.record).ok_or(ContainerError::NotRunning)?]
            }
            None => {
                let root = Root::new(globals.root.as_deref());
                let outcomes = for_each(&root, |directory, record| measure(directory, &record))?;
                outcomes.problems.iter().for_each(|problem| tracing::warn!("{problem}"));
                outcomes.found.into_iter().flatten().collect()
            }
        };
        match io::stdout().write_all(metrics::text(&sandboxes).as_bytes()) {
            Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }
}

/// Measures a sandbox; `None` if the container has no VM of its own.
fn measure(directory: &Directory, record: &Record) -> Option<Sandbox> {
    let relay = record.relay.filter(|relay| record.complete && relay.is_alive())?;
    let subject = Subject::of(record)?;
    Some(Sandbox::measure(subject, &Host { directory: directory.as_fd(), relay: relay.pid }, WITHIN))
}

/// Reaches a sandbox by its directory and its relay's PID.
struct Host<'a> {
    directory: BorrowedFd<'a>,
    relay: i32,
}

impl Reach for Host<'_> {
    fn vmm(&self, deadline: Deadline) -> io::Result<Control> {
        Control::connect_by(self.directory, deadline)
    }

    fn agent(&self) -> io::Result<UnixStream> {
        descriptors::connect(self.directory, AGENT_SOCKET)
    }

    fn interfaces(&self) -> Option<String> {
        std::fs::read_to_string(format!("/proc/{}/net/dev", self.relay)).ok()
    }
}
