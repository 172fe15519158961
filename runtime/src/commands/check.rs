//! `stockade check`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::check::{self, Report};

/// Say whether this host can run microVMs, and what to do if it cannot.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  stockade check\n  stockade check --format json\n  stockade check --format labels"
)]
pub struct Check {
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// Labels of a Kubernetes node.
    Labels,
}

impl Check {
    /// Prints the report; the exit status is 0 if everything needed is there, else 1.
    ///
    /// # Errors
    /// When it cannot be printed.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let report: Report = check::report();
        let text = match self.format {
            Format::Table => report.to_string(),
            Format::Labels => report.labels(),
            Format::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
        };
        io::stdout().write_all(text.as_bytes())?;
        Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
