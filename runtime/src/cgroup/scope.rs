//! A container's cgroup as a scope of systemd: its name, and its limits as properties.

use std::io::{self, PipeWriter, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stockade_sys::descriptors::close_all_but;

use super::systemd::{Properties, Systemd, SystemdError, Value};
use crate::sys::process::{self, Child};

/// The end of every slice's name.
const SLICE: &str = ".slice";
/// The slice of containers whose config.json names none.
const DEFAULT_SLICE: &str = "system.slice";
/// The prefix of scopes' names if config.json gives none.
const DEFAULT_PREFIX: &str = "stockade";
/// Longest name of a unit, in bytes.
const LIMIT: usize = 255;

/// A file of a cgroup and what is written to it.
pub type Setting = (&'static str, String);

/// Why a scope cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// `linux.cgroupsPath` does not name a scope.
    #[error("linux.cgroupsPath: {path:?} {problem}; with --systemd-cgroup it is SLICE:PREFIX:NAME")]
    Path {
        /// The path from config.json.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A limit cannot be written as a property.
    #[error("linux.resources: systemd has no property for {file} {value:?}")]
    Value {
        /// The cgroup's file.
        file: String,
        /// The value that it is to hold.
        value: String,
    },
    /// The placeholder cannot be made.
    #[error("cannot start the first process of a scope: {0}")]
    Placeholder(io::Error),
    /// An error of systemd.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
}

/// A scope in a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// `machine.slice`
    pub slice: String,
    /// `libpod-ID.scope`
    pub unit: String,
}

impl Scope {
    /// Reads `linux.cgroupsPath` by runc's rule: it is `SLICE:PREFIX:NAME`, and slice and prefix may be empty. An
    /// absent path stands for the default slice and prefix and the container's ID.
    ///
    /// # Errors
    /// [`ScopeError::Path`].
    pub fn parse(cgroups_path: &Path, id: &str) -> Result<Self, ScopeError> {
        let error = |problem| ScopeError::Path { path: cgroups_path.to_owned(), problem };
        let text = cgroups_path.to_str().ok_or_else(|| error("is not UTF-8"))?;
        let parts: Vec<&str> =
            if text.is_empty() { vec!["", DEFAULT_PREFIX, id] } else { text.split(':').collect() };
        let [slice, prefix, name] = parts[..] else { return Err(error("does not have three parts")) };
        let slice = if slice.is_empty() { DEFAULT_SLICE } else { slice };
        let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        if name.is_empty() {
            return Err(error("has an empty name"));
        }
        if !slice_is_valid(slice) {
            return Err(error("does not begin with the name of a slice, such as system.slice"));
        }
        if !unit.bytes().all(is_of_unit) || unit.len() > LIMIT {
            return Err(error("does not give a valid unit name"));
        }
        Ok(Self { slice: slice.to_owned(), unit })
    }

    /// The path of the scope's cgroup below the cgroup root: every dash in a slice's name is a level.
    pub fn path(&self) -> PathBuf {
        let mut path = PathBuf::new();
        let stem = self.slice.strip_suffix(SLICE).unwrap_or(&self.slice);
        if stem != "-" {
            for (dash, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
                path.push(format!("{}{SLICE}", &stem[..dash]));
            }
        }
        path.join(&self.unit)
    }

    /// Starts the scope, with limits given as files of its cgroup. The scope ends with its last process; its first
    /// process is the placeholder.
    ///
    /// # Errors
    /// [`ScopeError`].
    pub fn start(&self, values: &[Setting]) -> Result<Placeholder, ScopeError> {
        let placeholder = Placeholder::start().map_err(ScopeError::Placeholder)?;
        let mut properties: Properties = vec![
            property("Description", Value::Text(format!("stockade container {}", self.unit))),
            property("Slice", Value::Text(self.slice.clone())),
            property("PIDs", Value::Pids(vec![placeholder.0.pid.unsigned_abs()])),
            property("Delegate", Value::Flag(true)),
            property("DefaultDependencies", Value::Flag(false)),
            // A failed scope need not be looked at: the runtime and its callers know why.
            property("CollectMode", Value::Text("inactive-or-failed".to_owned())),
            // vCPUs are tasks of the host, and the guest has its own limit.
            property("TasksMax", Value::Number(u64::MAX)),
        ];
        for accounting in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
            properties.push(property(accounting, Value::Flag(true)));
        }
        properties.extend(limits(values)?);
        Systemd::connect()?.start_scope(&self.unit, &properties)?;
        Ok(placeholder)
    }

    /// Changes limits, given as files of its cgroup, for the life of the scope.
    ///
    /// # Errors
    /// [`ScopeError`].
    pub fn set(&self, values: &[Setting]) -> Result<(), ScopeError> {
        if values.is_empty() {
            return Ok(());
        }
        Ok(Systemd::connect()?.set(&self.unit, &limits(values)?)?)
    }

    /// Stops the scope with all its processes. A scope that is gone already is no error.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub fn stop(&self) -> Result<(), SystemdError> {
        Systemd::connect()?.stop(&self.unit)
    }
}

/// A process that keeps a scope alive. It only waits, until this is dropped or until the process ends that has started
/// it.
#[derive(Debug)]
pub struct Placeholder(
    Child,
    #[expect(dead_code, reason = "what it waits for is that this is closed")] PipeWriter,
);

impl Placeholder {
    fn start() -> io::Result<Self> {
        let (mut reader, writer) = io::pipe()?;
        let body = || {
            // Only the creator's end may keep it waiting.
            // SAFETY: what is closed is the creator's, and this child does nothing with it.
            if unsafe { close_all_but(0, &[reader.as_raw_fd()]) }.is_ok() {
                let _ended = reader.read(&mut [0]);
            }
            0
        };
        // SAFETY: commands have one thread.
        let child = unsafe { process::clone(0, None, body) }?;
        Ok(Self(child, writer))
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        self.0.kill();
    }
}

fn property(name: &str, value: Value) -> (String, Value) {
    (name.to_owned(), value)
}

fn limits(values: &[Setting]) -> Result<Properties, ScopeError> {
    let property = |(file, value): &Setting| {
        limit(file, value).ok_or_else(|| ScopeError::Value { file: (*file).to_owned(), value: value.clone() })
    };
    values.iter().map(property).collect()
}

/// Divides limits into those that systemd has properties for and those that are written to the cgroup's files: limits
/// of single devices, and limits that systemd does not know and so does not change.
pub fn divide(values: &[Setting]) -> (Vec<Setting>, Vec<Setting>) {
    let has_property = |(file, value): &Setting| PROPERTIES.contains(file) && !value.contains(':');
    values.iter().cloned().partition(has_property)
}

/// The files that [`limit`] knows.
const PROPERTIES: [&str; 5] = ["memory.max", "io.weight", "cpu.weight", "cpuset.cpus", "cpuset.mems"];

/// The property for a cgroup's file.
fn limit(file: &str, value: &str) -> Option<(String, Value)> {
    let number = |value: &str| match value {
        "max" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    Some(match file {
        "memory.max" => property("MemoryMax", Value::Number(number(value)?)),
        "io.weight" => property("IOWeight", Value::Number(number(value.trim_start_matches("default "))?)),
        "cpu.weight" => property("CPUWeight", Value::Number(number(value)?)),
        "cpuset.cpus" => property("AllowedCPUs", Value::Bytes(bits(value)?)),
        "cpuset.mems" => property("AllowedMemoryNodes", Value::Bytes(bits(value)?)),
        _ => return None,
    })
}

/// A list such as `0-3,7` as a bit string, the first byte for the numbers from 0 on.
fn bits(list: &str) -> Option<Vec<u8>> {
    /// More CPUs than Linux supports.
    const MAX: usize = 1 << 14;
    let mut bytes = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MAX {
            return None;
        }
        for number in first..=last {
            if bytes.len() <= number / 8 {
                bytes.resize(number / 8 + 1, 0);
            }
            bytes[number / 8] |= 1 << (number % 8);
        }
    }
    Some(bytes)
}

/// systemd.unit(5)
fn is_of_unit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte)
}

fn slice_is_valid(slice: &str) -> bool {
    let Some(stem) = slice.strip_suffix(SLICE) else { return false };
    let is_name = stem.bytes().all(|byte| is_of_unit(byte) && byte != b'@') && slice.len() <= LIMIT;
    stem == "-" || is_name && stem.split('-').all(|part| !part.is_empty())
}

#[cfg(test)]
#[path = "scope_test.rs"]
mod tests;
