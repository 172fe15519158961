//! The runtime as a library: what the `stockade` command does, for the command itself and for the fuzz targets.

mod agent;
mod bundle;
mod bytes;
mod check;
mod cli;
mod commands;
mod config;
mod container_id;
mod deadline;
mod error;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod hooks;
mod host;
mod host_sockets;
mod install;
mod life_cycle;
mod local_time;
mod log;
mod lower;
mod machine;
mod metrics;
mod mount_points;
mod network;
mod pid_file;
mod port_forward;
mod preserved;
mod relay;
mod replacement;
mod role;
mod sandbox;
mod shares;
mod sizing;
mod state;
mod stats;
mod sys;
mod table;
mod terminal;
mod tsc;
mod usage;
mod users;
mod version;

use std::io::Write;
use std::process::ExitCode;

/// The command, from its arguments to its exit status: parse, set up the log, do the one command, say what failed.
pub fn main() -> ExitCode {
    let started = tsc::now();
    #[cfg(feature = "takeover")]
    stockade_takeover::open_report();
    let outcome = cli::parse().and_then(|parsed| match parsed {
        cli::Parsed::Text(text) => {
            std::io::stdout().write_all(text.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        cli::Parsed::Command(parsed) => {
            let (globals, command) = *parsed;
            log::start(&globals)?;
            cli::debug_unused(&globals, &command);
            tracing::debug!(tsc = started, "stockade {} begins", version::RUNTIME);
            commands::run(&globals, command)
        }
    });
    outcome.unwrap_or_else(|error| {
        log::report(&error);
        ExitCode::from(error::exit_status(&error))
    })
}
