//! Options that every command has, and values that several take.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// Options of every command.
#[derive(Debug, Args)]
pub struct Globals {
    /// Directory for the containers' state [default: /run/stockade, or $XDG_RUNTIME_DIR/stockade when not root]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// File to append log lines to; without it, errors go to stderr, and warnings too if stderr is a terminal
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Form of the lines in the log file
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Lowest severity to log
    #[arg(long, global = true, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
    /// Same as --log-level debug
    #[arg(long, global = true)]
    pub debug: bool,
    /// Same as --cgroup-manager systemd
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// Driver that makes the container's cgroup on the host [default: cgroupfs]
    #[arg(long, global = true, value_enum)]
    pub cgroup_manager: Option<CgroupDriver>,
    /// For spec: write a configuration for a user without privileges. No effect on other commands
    #[arg(long, global = true, value_name = "MODE", num_args = 0..=1, require_equals = true)]
    pub rootless: Option<Option<String>>,
}

/// Form of the lines in the log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `time="…" level=… msg="…"`
    Text,
    /// One JSON object per line.
    Json,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything that happens.
    #[value(alias = "trace")]
    Debug,
    /// The main steps of a command.
    Info,
    /// Requests that are not fulfilled as asked.
    #[value(alias = "warning")]
    Warn,
    /// Failures.
    #[value(alias = "fatal", alias = "panic")]
    Error,
}

/// What makes the cgroups on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CgroupDriver {
    /// stockade itself, below /sys/fs/cgroup.
    Cgroupfs,
    /// systemd, as a scope; linux.cgroupsPath is SLICE:PREFIX:NAME.
    Systemd,
    /// Nobody: VMM and relay stay in the caller's cgroup.
    Disabled,
}

impl Globals {
    /// The driver that makes cgroups, by both options.
    pub fn cgroup_driver(&self) -> CgroupDriver {
        let default = if self.systemd_cgroup { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
        self.cgroup_manager.unwrap_or(default)
    }

    /// Whether `--rootless` asks for a configuration without privileges: runc's callers also pass true, false or auto.
    pub fn is_rootless(&self) -> bool {
        matches!(self.rootless.as_ref().map(Option::as_deref), Some(None | Some("true")))
    }
}

/// An interval as callers write it, such as `5s` or `1m30s`.
///
/// # Errors
/// When the text is not a time, or the time is 0.
pub fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("duration interval must be greater than 0".to_owned()),
        Ok(interval) => Ok(interval),
        Err(_) => Err("give a number and a unit, such as 5s, 500ms or 1m30s".to_owned()),
    }
}
