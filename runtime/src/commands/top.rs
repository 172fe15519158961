//! `stockade top`.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use crate::life_cycle;
use crate::options::{self, Globals};
use crate::state::Root;
use crate::stats::usage::Usage;
use crate::sys::signals;
use crate::sys::terminal::{self, FullScreen};
use crate::text::bytes;
use crate::text::table;

/// Keys that leave: q, and Ctrl-C and Ctrl-D, which a raw terminal delivers as characters.
const LEAVE: [u8; 4] = [b'q', b'Q', 0x03, 0x04];

/// Show live what containers and their VMs use.
#[derive(Debug, Args)]
#[command(
    after_help = "The VM columns show what the host sees of a VM: CPU in percent of one CPU, memory in RAM, bytes per \
second read from and written to disks. CPU, MEM and PIDS show what the container uses in the VM. The first table shows \
averages since the start. Press q to leave.

Examples:
  stockade top
  stockade top --once"
)]
pub struct Top {
    /// Time between tables
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = options::interval)]
    interval: Duration,
    /// Print one table and leave; this is also done where standard output is not a terminal
    #[arg(long)]
    once: bool,
}

impl Top {
    /// Shows the tables until the user leaves.
    ///
    /// # Errors
    /// When the containers' state or the terminal cannot be read.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let root = Root::new(globals.root.as_deref());
        if self.once || !io::stdout().is_terminal() {
            let text = table(&measure(&root)?, &HashMap::new());
            return Ok(io::stdout().write_all(text.as_bytes())?);
        }
        let signals = signals::block_all().context("cannot block signals")?;
        let screen = FullScreen::enter().context("cannot take the terminal over")?;
        let mut before = HashMap::new();
        loop {
            let drawn = Instant::now();
            let usages = measure(&root)?;
            screen.draw(&table(&usages, &before))?;
            before = usages.into_iter().map(|usage| (usage.id.clone(), usage)).collect();
            if wait(&screen, &signals, drawn + self.interval)? {
                return Ok(());
            }
        }
    }
}

/// What every running container uses now, the busiest VM first.
fn measure(root: &Root) -> anyhow::Result<Vec<Usage>> {
    let outcomes = life_cycle::for_each(root, |directory, record| Usage::measure(directory, &record))?;
    outcomes.problems.iter().for_each(|problem| tracing::debug!("{problem}"));
    Ok(outcomes.found.into_iter().flatten().collect())
}

fn table(usages: &[Usage], before: &HashMap<String, Usage>) -> String {
    let mut sorted: Vec<_> = usages.iter().map(|usage| (usage, before.get(&usage.id))).collect();
    let busy = |(usage, before): &(&Usage, Option<&Usage>)| usage.vm_cpu(*before).unwrap_or(0.0);
    sorted.sort_by(|a, b| busy(b).total_cmp(&busy(a)));
    let heading =
        ["ID", "STATUS", "VM-CPU%", "VM-MEM", "VM-READ/s", "VM-WRITE/s", "CPU%", "MEM", "LIMIT", "PIDS"]
            .map(str::to_owned);
    let rows = sorted.into_iter().map(|(usage, before)| row(usage, before));
    table::align(&[heading].into_iter().chain(rows).collect::<Vec<_>>())
}

fn row(usage: &Usage, before: Option<&Usage>) -> [String; 10] {
    let none = || "-".to_owned();
    let percent = |share: Option<f64>| share.map_or_else(none, |share| format!("{share:.1}"));
    let amount = |bytes: Option<u64>| bytes.map_or_else(none, bytes::short);
    let io = usage.vm_io(before);
    [
        usage.id.clone(),
        usage.status.to_owned(),
        percent(usage.vm_cpu(before)),
        amount(usage.vm.map(|vm| vm.memory)),
        amount(io.map(|[read, _]| read)),
        amount(io.map(|[_, written]| written)),
        percent(usage.container_cpu(before)),
        amount(usage.container.map(|container| container.memory)),
        amount(usage.container.and_then(|container| container.limit)),
        usage.container.map_or_else(none, |container| container.pids.to_string()),
    ]
}

/// Waits until the next table is due, or the window has changed; true if the user leaves.
fn wait(screen: &FullScreen, signals: &SignalFd, until: Instant) -> anyhow::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if screen.has_keyboard() {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(0) => return Ok(false),
            result => result?,
        };
        let keys = fds.get(1).and_then(PollFd::any).unwrap_or(false);
        while let Some(signal) = signals.read_signal()? {
            match signal.ssi_signo as i32 {
                libc::SIGWINCH => return Ok(false),
                libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT => return Ok(true),
                _ => {}
            }
        }
        if keys && terminal::read_keys()?.is_none_or(|keys| keys.iter().any(|key| LEAVE.contains(key))) {
            return Ok(true);
        }
    }
}
