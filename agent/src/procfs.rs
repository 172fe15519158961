//! What /proc tells about a process of a container.
//!
//! The processes belong to a container that may have chosen their names and arguments to mislead, and any of them may
//! end while it is read, and is then left out.

use std::{
    fs::{self, File},
    io::Read,
};

/// Clock ticks per second in /proc: USER_HZ of x86-64.
const TICKS_PER_S: u64 = 100;

/// Longest command line that is reported, in bytes.
const COMMAND_LIMIT: usize = 128;

/// Major numbers of the slaves of pseudo-terminals.
const PTS_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcInfo {
    /// Its PID in each PID namespace from the guest's root inwards.
    pub pids: Vec<u32>,
    /// Its parent's PID in the guest's root PID namespace.
    pub parent: u32,
    /// Real user ID.
    pub uid: u32,
    /// Name of its terminal.
    pub terminal: Option<String>,
    /// When it began, in ticks since boot.
    start_ticks: u64,
    /// CPU time that it has used, in ticks.
    cpu_ticks: u64,
    /// Its command line, or its name in brackets.
    pub command: String,
}

impl ProcInfo {
    /// Reads a process; `None` if it has ended.
    pub fn read(pid: i32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let mut arguments = Vec::new();
        let limit = COMMAND_LIMIT as u64;
        File::open(format!("/proc/{pid}/cmdline")).ok()?.take(limit).read_to_end(&mut arguments).ok()?;
        Self::parse(&status, &String::from_utf8_lossy(&stat), &arguments)
    }

    fn parse(status: &str, stat: &str, arguments: &[u8]) -> Option<Self> {
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        // The name is between the first and the last parenthesis, and may hold some itself.
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1;
        // Field 3, the state, is the first of the tail.
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index - 3)?.parse::<u64>().ok();
        Some(Self {
            pids: pids(field("NSpid")?),
            parent: field("PPid")?.parse().ok()?,
            uid: field("Uid")?.split_ascii_whitespace().next()?.parse().ok()?,
            terminal: terminal(fields.get(7 - 3)?.parse::<i32>().ok()? as u32),
            cpu_ticks: number(14)?.saturating_add(number(15)?),
            start_ticks: number(22)?,
            command: command(name, arguments),
        })
    }

    /// Its PID in the namespace that is `depth` levels below the guest's root.
    pub fn pid_at(&self, depth: usize) -> Option<u32> {
        self.pids.get(depth).copied()
    }

    /// When it began, in seconds since 1970.
    pub fn started(&self, boot_time_s: u64) -> u64 {
        boot_time_s.saturating_add(self.start_ticks / TICKS_PER_S)
    }

    /// CPU time that it has used, in milliseconds.
    pub fn cpu_ms(&self) -> u64 {
        self.cpu_ticks.saturating_mul(1000 / TICKS_PER_S)
    }
}

/// A process's PIDs, from the guest's root PID namespace inwards; empty if it has ended.
pub fn pids_of(pid: u32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("NSpid:")).map(pids).unwrap_or_default()
}

/// When the guest booted, in seconds since 1970.
pub fn boot_time_s() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok()).unwrap_or(0)
}

fn pids(list: &str) -> Vec<u32> {
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn terminal(device: u32) -> Option<String> {
    // As in makedev(3)'s 32-bit form.
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    PTS_MAJORS.contains(&major).then(|| format!("pts/{}", (major - PTS_MAJORS.start()) * 256 + minor))
}

/// The command line from its arguments, which end with zeros; a program may have overwritten them with anything.
fn command(name: &str, arguments: &[u8]) -> String {
    let text = String::from_utf8_lossy(arguments);
    let words: Vec<&str> = text.split('\0').filter(|word| !word.is_empty()).collect();
    let command = if words.is_empty() { format!("[{name}]") } else { words.join(" ") };
    // Bytes that are not UTF-8 have become longer.
    let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= COMMAND_LIMIT;
    command.char_indices().take_while(fits).map(|(_, c)| c).collect()
}

#[cfg(test)]
#[path = "procfs_test.rs"]
mod tests;
