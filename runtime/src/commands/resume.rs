//! `stockade resume`.

use clap::Args;
use stockade_protocol::agent::ErrorKind;

use crate::life_cycle::{Handle, no_longer_runs};
use crate::options::Globals;
use crate::state::ContainerError;
use crate::vm::agent::{ClientError, call};

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
    /// [`ContainerError::NotPaused`], also of a container that has stopped, or why they cannot go on.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let handle = Handle::lock(globals, &self.id)?;
        handle.relay().map_err(|_| ContainerError::NotPaused)?;
        handle.ask(call::Resume(handle.id.to_string())).map_err(|error| match error {
            error if no_longer_runs(&error) => anyhow::Error::from(ContainerError::NotPaused),
            ClientError::Agent(error) if error.kind == ErrorKind::WrongState => {
                ContainerError::NotPaused.into()
            }
            error => anyhow::Error::from(error),
        })?;
        handle.directory.change(|record| record.paused = false)
    }
}
