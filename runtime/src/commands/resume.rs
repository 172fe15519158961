//! `stockade resume`.

use clap::Args;

use crate::life_cycle::{self, Handle};
use crate::options::Globals;

/// Let the processes of a paused container go on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade resume mine")]
pub struct Resume {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
}

impl Resume {
    /// Lets the processes go on.
    ///
    /// # Errors
    /// [`crate::state::ContainerError::NotPaused`], also of a container that has stopped, or why they cannot go on.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        life_cycle::resume(&Handle::lock(globals, &self.id)?)
    }
}
