//! The command line: the union of what engines pass to runc, crun and youki.
//!
//! Options may stand before or after the container's ID. What means nothing under a VM is accepted, is marked "no
//! effect" in `--help`, and is mentioned in the debug log.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::check::version;
use crate::commands;

/// OCI container runtime that runs every container in a microVM.
#[derive(Debug, Parser)]
#[command(
    name = "stockade",
    disable_help_subcommand = true,
    max_term_width = 110,
    after_help = "Examples:\n  stockade check\n  stockade run --bundle bundle mine\n  stockade --debug state mine"
)]
struct Cli {
    #[command(flatten, next_help_heading = "Options of every command")]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Globals {
    /// Folder for the containers' state [default: /run/stockade, or $XDG_RUNTIME_DIR/stockade when not root]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// File to append log lines to; without it errors go to stderr, and warnings too if that is a terminal
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Form of the lines in the log file
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Least severe lines to log
    #[arg(long, global = true, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
    /// Same as --log-level debug
    #[arg(long, global = true)]
    pub debug: bool,
    /// Same as --cgroup-manager systemd
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// Who makes the container's cgroup on the host [default: cgroupfs]
    #[arg(long, global = true, value_enum)]
    pub cgroup_manager: Option<CgroupDriver>,
    /// For spec: a configuration for a user without privileges. No effect on other commands
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

/// Severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    #[value(alias = "trace")]
    Debug,
    /// What happens.
    Info,
    /// What is not as asked.
    #[value(alias = "warning")]
    Warn,
    /// What failed.
    #[value(alias = "fatal", alias = "panic")]
    Error,
}

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CgroupDriver {
    /// stockade itself.
    Cgroupfs,
    /// systemd, as a scope; linux.cgroupsPath is SLICE:PREFIX:NAME.
    Systemd,
    /// Nobody: VMM and relay stay in the caller's cgroup.
    Disabled,
}

/// The commands; each is a file in `commands/`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a container, start it, and wait for its end
    Run(commands::run::Run),
    /// Create a container; its process waits for `start`
    Create(commands::create::Create),
    /// Start the process of a created container
    Start(commands::start::Start),
    /// Execute another process in a container
    Exec(commands::exec::Exec),
    /// Print a container's state as JSON
    State(commands::state::State),
    /// List the containers
    List(commands::list::List),
    /// List the processes of a container
    Ps(commands::ps::Ps),
    /// Print a container's statistics and events as JSON lines
    Events(commands::events::Events),
    /// Show what containers and their VMs use, live
    Top(commands::top::Top),
    /// Print what sandboxes and their containers use, for Prometheus
    Metrics(commands::metrics::Metrics),
    /// Change the limits of a container
    Update(Box<commands::update::Update>),
    /// Send a signal to a container
    Kill(commands::kill::Kill),
    /// Freeze every process of a container
    Pause(commands::pause::Pause),
    /// Let the processes of a paused container go on
    Resume(commands::resume::Resume),
    /// Remove a container and everything it holds
    Delete(commands::delete::Delete),
    /// Write a config.json to start from
    Spec(commands::spec::Spec),
    /// Say whether this host can run microVMs, and what to do where it cannot
    Check(commands::check::Check),
    /// Open a shell in a container's guest itself, to debug it
    Shell(commands::shell::Shell),
    /// Print the console of a container's guest
    Logs(commands::logs::Logs),
    /// Print what this runtime can apply of config.json, as JSON
    Features(commands::features::Features),
    /// Save a running container: refused, there are no snapshots yet
    Checkpoint(commands::checkpoint::Checkpoint),
    /// Go on with a saved container: refused, there are no snapshots yet
    Restore(commands::restore::Restore),
    /// Change a container's mounts: refused, they are fixed when it is created
    Mounts(commands::mounts::Mounts),
    /// Tell an engine of this runtime: podman, Docker, containerd, CRI-O
    Install(commands::install::Install),
    /// Take back what install has told an engine
    Uninstall(commands::uninstall::Uninstall),
    /// Print a shell's completion script
    Completion(commands::completion::Completion),
    /// Write the manual pages
    Man(commands::man::Man),
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Parsed {
    /// Print this: help or version.
    Text(String),
    /// Do this.
    Command(Box<(Globals, Command)>),
}

/// The command line is not understood.
#[derive(Debug, thiserror::Error)]
#[error("{0} (see `stockade --help`)")]
struct UsageError(String);

/// Parses the process's arguments.
///
/// # Errors
/// One line that says what is wrong with them.
pub fn parse() -> anyhow::Result<Parsed> {
    parse_from(std::env::args_os())
}

/// The command line's definition, for whoever describes it.
pub fn definition() -> clap::Command {
    // clap would print "stockade 0.1.0"; engines parse runc's several lines.
    let version = clap::Arg::new("version")
        .long("version")
        .short('v')
        .help("Print version")
        .action(clap::ArgAction::Version);
    Cli::command().version(version::RUNTIME).disable_version_flag(true).arg(version)
}

fn parse_from<I, T>(arguments: I) -> anyhow::Result<Parsed>
where
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    let parsed =
        definition().try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => Ok(Parsed::Command(Box::new((cli.globals, cli.command)))),
        Err(error) => match error.kind() {
            ErrorKind::DisplayVersion => Ok(Parsed::Text(version::text())),
            ErrorKind::DisplayHelp => Ok(Parsed::Text(error.render().to_string())),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Err(UsageError("no command given".to_owned()).into())
            }
            _ => Err(UsageError(one_line(&error.render().to_string())).into()),
        },
    }
}

/// clap's explanation without its prefix, usage and blank lines.
fn one_line(rendered: &str) -> String {
    let explanation = rendered.split("\n\nUsage:").next().unwrap_or(rendered);
    let explanation = explanation.split("\n\nFor more information").next().unwrap_or(explanation);
    let words: Vec<&str> = explanation.trim_start_matches("error: ").split_whitespace().collect();
    words.join(" ")
}

/// An interval as callers write it, such as `5s` or `1m30s`.
///
/// # Errors
/// When it is no time, or none at all.
pub fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("duration interval must be greater than 0".to_owned()),
        Ok(interval) => Ok(interval),
        Err(_) => Err("give a number and a unit, such as 5s, 500ms or 1m30s".to_owned()),
    }
}

impl Globals {
    /// Who is to make cgroups.
    pub fn cgroup_driver(&self) -> CgroupDriver {
        let default = if self.systemd_cgroup { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
        self.cgroup_manager.unwrap_or(default)
    }

    /// Whether `--rootless` asks for it: runc's callers also pass true, false or auto.
    pub fn is_rootless(&self) -> bool {
        matches!(self.rootless.as_ref().map(Option::as_deref), Some(None | Some("true")))
    }
}

/// Mentions in the debug log which of the given global options have no effect.
pub fn debug_unused(globals: &Globals, command: &Command) {
    if globals.rootless.is_some() && !matches!(command, Command::Spec(_)) {
        tracing::debug!("--rootless has no effect");
    }
}

#[cfg(test)]
#[path = "cli_test.rs"]
mod tests;
