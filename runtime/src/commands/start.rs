//! `stockade start`.

use clap::Args;

use crate::life_cycle::{self, Visit};
use crate::options::Globals;
use crate::state::ContainerError;

/// Start the process of a created container.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  stockade start mine")]
pub struct Start {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
}

impl Start {
    /// Starts it.
    ///
    /// # Errors
    /// [`ContainerError`] in another state than "created", or why the program cannot be executed.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let visit = Visit::lock(globals, &self.id)?;
        visit.relay().map_err(|_| ContainerError::HasStopped)?;
        life_cycle::start(&visit.folder, &visit.record, &mut visit.wait())
    }
}
