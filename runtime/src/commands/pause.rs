//! `stockade pause`.

use clap::Args;

use crate::life_cycle::{self, Handle};
use crate::options::Globals;

/// Freeze every process of a container.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade pause mine")]
pub struct Pause {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
}

impl Pause {
    /// Freezes the processes; when this returns, they are frozen.
    ///
    /// # Errors
    /// [`crate::state::ContainerError`], or why the processes cannot be frozen; they then go on.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        life_cycle::pause(&Handle::lock(globals, &self.id)?)
    }
}
