//! The runtime as a library: what the `stockade` command does, for the command itself and for the fuzz targets.

mod cgroup;
mod check;
mod cli;
mod commands;
mod config;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod install;
mod life_cycle;
mod log;
mod lower;
mod metrics;
mod network;
mod node;
mod oci;
mod options;
mod relay;
mod shim;
mod state;
mod stats;
mod sys;
mod text;
mod vm;

use std::io::Write;
use std::process::ExitCode;

/// The command, from its arguments to its exit status: parses them, sets up the log, executes the command and reports
/// what failed. Called by the name of containerd's shim, it is that.
pub fn main() -> ExitCode {
    let started = sys::tsc::now();
    if shim::is_meant(std::env::args_os().next()) {
        return shim::main();
    }
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
            tracing::debug!(tsc = started, "stockade {} begins", check::version::RUNTIME);
            commands::run(&globals, command, cli::definition)
        }
    });
    outcome.unwrap_or_else(|error| {
        log::report(&error);
        ExitCode::from(commands::exit_status::exit_status(&error))
    })
}

/// `containerd-shim-stockade-v2`, from its arguments to its exit status.
pub fn shim() -> ExitCode {
    shim::launch()
}
