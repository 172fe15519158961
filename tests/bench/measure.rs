//! Runs a command and reads the TSC around it.

use std::arch::x86_64::_rdtsc;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// One run of a command.
pub struct Run {
    /// TSC before the command was started.
    pub start: u64,
    /// TSC after it had ended and its output was read.
    pub end: u64,
    /// What was work and what was waiting between the two.
    pub between: Between,
    /// Its standard output.
    pub stdout: String,
}

impl Run {
    /// Runs a command that must succeed.
    pub fn of(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null());
        let before = Mark::set()?;
        let start = tsc();
        let output = command.output()?;
        let end = tsc();
        let between = Mark::set()?.since(&before);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{command:?}: {}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(Self { start, end, between, stdout })
    }

    /// TSC ticks that a command takes which leaves processes behind.
    pub fn detached(command: &mut Command) -> Result<u64> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let start = tsc();
        let status = command.status()?;
        let end = tsc();
        if !status.success() {
            bail!("{command:?}: {status}");
        }
        Ok(end - start)
    }

    /// The number that the container's program printed: its TSC at its first instructions.
    pub fn first_tsc(&self) -> Result<u64> {
        number_after(&self.stdout, "TSC=")
    }
}

/// Runs a command to its end: TSC ticks until a line of its output has `mark`, and what is work and waiting until its end.
pub fn first_output(command: &mut Command, mark: &str) -> Result<(u64, Between)> {
    let before = Mark::set()?;
    let start = tsc();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut first = None;
    for line in BufReader::new(child.stdout.take().context("piped")?).lines() {
        if line?.contains(mark) {
            first.get_or_insert(tsc());
        }
    }
    child.wait()?;
    let between = Mark::set()?.since(&before);
    let Some(first) = first else { bail!("{command:?}: no {mark:?} in its output") };
    Ok((first - start, between))
}

/// Runs a command to its end: how many bytes it wrote, and TSC ticks from the first of them to the last.
pub fn output_rate(command: &mut Command) -> Result<(u64, u64)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut stdout = child.stdout.take().context("piped")?;
    let mut buffer = vec![0; 1 << 20];
    let (mut bytes, mut first, mut last) = (0, None, 0);
    loop {
        let count = stdout.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        last = tsc();
        first.get_or_insert(last);
        bytes += count as u64;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok((bytes, last - first.unwrap_or(last)))
}

/// A moment, for what waits for timers and for grace periods of the kernel: the lab's clock runs ahead while the machine
/// is idle.
pub struct Mark {
    before: u64,
    after: u64,
    idle: u64,
}

/// What was between two moments.
#[derive(Clone, Copy)]
pub struct Between {
    /// TSC ticks of work: instructions.
    pub work: u64,
    /// Nanoseconds in which the machine was idle.
    pub waiting: u64,
}

impl Mark {
    /// Sets one. What that costs itself is on neither side.
    pub fn set() -> Result<Self> {
        let before = tsc();
        // To the nanosecond, which is a TSC tick here. /proc/stat has hundredths of a second.
        let timers = fs::read_to_string("/proc/timer_list").context("/proc/timer_list")?;
        let idle = number_after(&timers, ".idle_sleeptime : ")?;
        Ok(Self { before, after: tsc(), idle })
    }

    /// What has been since an earlier one.
    pub fn since(&self, earlier: &Self) -> Between {
        let waiting = self.idle - earlier.idle;
        Between { work: self.before - earlier.after - waiting, waiting }
    }
}

/// The host's time stamp counter.
pub fn tsc() -> u64 {
    // SAFETY: every x86_64 has RDTSC.
    unsafe { _rdtsc() }
}

/// The decimal number behind `mark` in `text`.
pub fn number_after(text: &str, mark: &str) -> Result<u64> {
    let Some((_, rest)) = text.split_once(mark) else { bail!("no {mark:?} in {text:?}") };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

/// Middle value and spread (largest minus smallest) of some measurements.
pub fn median_and_spread(mut values: Vec<u64>) -> (u64, u64) {
    values.sort_unstable();
    match (values.first(), values.last()) {
        (Some(first), Some(last)) => (values[values.len() / 2], last - first),
        _ => (0, 0),
    }
}
