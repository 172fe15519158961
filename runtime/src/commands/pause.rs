//! `stockade pause`.

use clap::Args;
use stockade_protocol::agent::ErrorKind;

use crate::life_cycle::{Handle, explain};
use crate::options::Globals;
use crate::state::ContainerError;
use crate::vm::agent::{ClientError, call};

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
    /// [`ContainerError`], or why the processes cannot be frozen; they then go on.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let handle = Handle::lock(globals, &self.id)?;
        handle.relay()?;
        handle.ask(call::Pause(handle.id.to_string())).map_err(|error| match error {
            ClientError::Agent(error) if error.kind == ErrorKind::WrongState => {
                ContainerError::CannotPause(handle.status().name()).into()
            }
            error => explain(error),
        })?;
        handle.directory.change(|record| record.paused = true)
    }
}
