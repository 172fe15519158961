//! `stockade list`.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::state::Json;
use crate::life_cycle::{self, Status};
use crate::options::Globals;
use crate::state::Root;
use crate::sys::deadline::Deadline;
use crate::text::{json, table};

/// How long the table may wait for all guests together, to say which do not answer. The states do not depend on it.
const GLANCE: Duration = Duration::from_millis(500);

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
    /// Lists the containers.
    ///
    /// # Errors
    /// When the directory of the containers' state cannot be read. If the state of one container cannot be read, a
    /// warning says so, and the others are listed.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let root = Root::new(globals.root.as_deref());
        life_cycle::remove_abandoned(&root, None);
        let deadline = Deadline::within(GLANCE);
        let is_table = !self.quiet && self.format == Format::Table;
        let outcomes = life_cycle::for_each(&root, |directory, record| {
            let status = life_cycle::status(directory, &record);
            let is_mute = is_table
                && status == Status::Running
                && !deadline.left().is_zero()
                && !life_cycle::answers(directory, &record, deadline);
            (record, status, is_mute)
        })?;
        outcomes.problems.iter().for_each(|problem| tracing::warn!("{problem}"));
        let found = &outcomes.found;
        let states: Vec<Json<'_>> =
            found.iter().map(|(record, status, _)| Json::new(record, *status)).collect();
        let mute = found.iter().map(|(.., is_mute)| *is_mute);
        let text = match (self.quiet, self.format) {
            (true, _) => states.iter().map(|state| format!("{}\n", state.id)).collect(),
            (false, Format::Table) => table(states.iter().zip(mute)),
            (false, Format::Json) => format!("{}\n", json::compact(&states)?),
        };
        Ok(io::stdout().write_all(text.as_bytes())?)
    }
}

fn table<'a>(states: impl Iterator<Item = (&'a Json<'a>, bool)>) -> String {
    let heading = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = states.map(|(state, is_mute)| {
        [
            state.id.to_owned(),
            state.pid.to_string(),
            format!("{}{}", state.status, if is_mute { " (no answer)" } else { "" }),
            state.bundle.display().to_string(),
            state.created.to_owned(),
            state.owner.clone(),
        ]
    });
    table::align(&[heading].into_iter().chain(rows).collect::<Vec<_>>())
}
