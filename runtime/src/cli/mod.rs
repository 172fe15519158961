//! The command line: the union of what engines pass to runc, crun and youki.
//!
//! Options may stand before or after the container's ID. Options that mean nothing for a VM are accepted, marked "no
//! effect" in `--help`, and mentioned in the debug log.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

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

/// The definition of the command line with no other command than the first that an argument names. What it understands, the whole
/// definition understands alike; its help and its errors are of no use. To define all commands takes as many instructions as most
/// commands take for their work.
fn definition_of(arguments: &[OsString]) -> Option<clap::Command> {
    let all = Command::augment_subcommands(clap::Command::new(""));
    let named = arguments.iter().skip(1).find_map(|argument| all.find_subcommand(argument))?;
    let with_globals = Globals::augment_args(clap::Command::new("stockade"));
    Some(with_globals.subcommand_required(true).disable_help_subcommand(true).subcommand(named.clone()))
}

fn parse_from<I, T>(arguments: I) -> anyhow::Result<Parsed>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let matches = definition_of(&arguments).and_then(|one| one.try_get_matches_from(&arguments).ok());
    let matches = matches.map_or_else(|| definition().try_get_matches_from(&arguments), Ok);
    let parsed = matches.and_then(|matches| Cli::from_arg_matches(&matches));
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
