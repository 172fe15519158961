//! `stockade list`.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::state::Json;
use crate::cli::Globals;
use crate::life_cycle;
use crate::state::Root;
use crate::table;

/// How long one container's agent may take to say how it is: a VM that hangs must not hide the others.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// List the containers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade list
  stockade list --format json | jq '.[] | select(.status == \"running\") | .id'
  stockade list --quiet | xargs -n 1 stockade delete --force")]
pub struct List {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Print IDs only
    #[arg(short, long)]
    quiet: bool,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl List {
    /// Lists them.
    ///
    /// # Errors
    /// When the folder of the containers' state cannot be read. A container whose own state cannot be read is warned
    /// about, and the others are listed.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let root = Root::new(globals.root.as_deref());
        let survey = life_cycle::survey(&root, |folder, record| {
            let status = life_cycle::status_within(folder, &record, ANSWERS_WITHIN);
            (record, status)
        })?;
        survey.problems.iter().for_each(|problem| tracing::warn!("{problem}"));
        let found = &survey.found;
        let states: Vec<Json<'_>> = found.iter().map(|(record, status)| Json::new(record, *status)).collect();
        let text = match (self.quiet, self.format) {
            (true, _) => states.iter().map(|state| format!("{}\n", state.id)).collect(),
            (false, Format::Table) => table(&states),
            (false, Format::Json) => format!("{}\n", serde_json::to_string(&states)?),
        };
        Ok(io::stdout().write_all(text.as_bytes())?)
    }
}

fn table(states: &[Json<'_>]) -> String {
    let heading = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = states.iter().map(|state| {
        [
            state.id.to_owned(),
            state.pid.to_string(),
            state.status.to_owned(),
            state.bundle.display().to_string(),
            state.created.to_owned(),
            state.owner.clone(),
        ]
    });
    table::align(&[heading].into_iter().chain(rows).collect::<Vec<_>>())
}
