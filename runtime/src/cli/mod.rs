//! The command line: the union of what engines pass to runc, crun and youki.
//!
//! Options may stand before or after the container's ID. Options that mean nothing for a VM are accepted, marked "no
//! effect" in `--help`, and mentioned in the debug log.

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};

use crate::check::version;
use crate::commands::Command;
use crate::options::Globals;

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

/// What the command line asks for.
#[derive(Debug)]
pub enum Parsed {
    /// Print this text, which is the help or the version.
    Text(String),
    /// Execute this command.
    Command(Box<(Globals, Command)>),
}

/// The command line is not understood.
#[derive(Debug, thiserror::Error)]
#[error("{0} (see `stockade --help`)")]
struct UsageError(String);

/// Parses the process's arguments.
///
/// # Errors
/// One line that says what is wrong with the arguments.
pub fn parse() -> anyhow::Result<Parsed> {
    parse_from(std::env::args_os())
}

/// The command line's definition, for completion scripts and manual pages.
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

/// Mentions in the debug log which of the given global options have no effect.
pub fn debug_unused(globals: &Globals, command: &Command) {
    if globals.rootless.is_some() && !matches!(command, Command::Spec(_)) {
        tracing::debug!("--rootless has no effect");
    }
}

#[cfg(test)]
#[path = "cli_test.rs"]
mod tests;
