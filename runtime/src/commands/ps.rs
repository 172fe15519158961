//! `stockade ps`: the container's processes as the container sees them, or their relays as the host does.
//!
//! The two are separate: processes of a container exist in its VM only, and engines compare the PIDs with the host's
//! own `ps`.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use stockade_protocol::agent::ProcessEntry;

use super::list::Format;
use crate::life_cycle::{Handle, explain};
use crate::options::Globals;
use crate::text::json;
use crate::text::local_time;
use crate::text::table::printable;
use crate::vm::agent::call;

const HEADING: &str = "UID          PID    PPID  C STIME TTY          TIME CMD\n";

/// List the processes of a container.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade ps web                 # processes, with their PIDs in the container
  stockade ps --format json web   # PIDs on the host that stand for processes of the container")]
pub struct Ps {
    /// Form of the output; json prints the PIDs that the processes' relays have on the host
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
    /// Options for ps(1). No effect: the table is always that of ps -ef
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    ps_options: Vec<String>,
}

impl Ps {
    /// Lists the processes; a container that has stopped has none.
    ///
    /// # Errors
    /// When there is no such container, or its agent cannot say.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        if !self.ps_options.is_empty() {
            tracing::debug!("options for ps(1) have no effect: {:?}", self.ps_options);
        }
        let handle = Handle::peek(globals, &self.id)?;
        let runs = handle.relay().is_ok();
        let text = match self.format {
            Format::Json if runs => format!("{}\n", json::compact(&relays(&handle)?)?),
            Format::Json => "[]\n".to_owned(),
            Format::Table if runs => {
                let processes = handle.ask(call::Processes(handle.id.to_string())).map_err(explain)?;
                table(&processes, SystemTime::now())
            }
            Format::Table => HEADING.to_owned(),
        };
        Ok(io::stdout().write_all(text.as_bytes())?)
    }
}

/// The processes of the container on the host: those of its cgroup, except those of the VM.
fn relays(handle: &Handle) -> anyhow::Result<Vec<i32>> {
    let relay = handle.relay()?.pid;
    let Some(cgroup) = &handle.record.cgroup else { return Ok(vec![relay]) };
    let mut pids = cgroup.processes()?;
    let machine = [handle.record.vmm, handle.record.files];
    pids.retain(|pid| machine.iter().flatten().all(|process| process.pid != *pid));
    Ok(pids)
}

pub(crate) fn table(processes: &[ProcessEntry], now: SystemTime) -> String {
    let lines = processes.iter().map(|process| line(process, now));
    [HEADING.to_owned()].into_iter().chain(lines).collect()
}

fn line(process: &ProcessEntry, now: SystemTime) -> String {
    let now_s = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let cpu_s = process.cpu_ms / 1000;
    // A guest may name any time, past or future.
    let age_s = now_s.saturating_sub(process.started).max(1);
    let cpu_percent = (process.cpu_ms / 10 / age_s).min(99);
    format!(
        "{:<8} {:>7} {:>7} {:>2} {:<5} {:<8} {:>8} {}\n",
        process.uid,
        process.pid,
        process.parent,
        cpu_percent,
        local_time::short(process.started, now_s),
        printable(process.terminal.as_deref().unwrap_or("?")),
        format!("{:02}:{:02}:{:02}", cpu_s / 3600, cpu_s / 60 % 60, cpu_s % 60),
        printable(&process.command),
    )
}

#[cfg(test)]
#[path = "ps_test.rs"]
mod tests;
