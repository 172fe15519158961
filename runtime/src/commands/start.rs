//! `stockade start`.

use std::os::fd::AsFd;
use std::time::Duration;

use clap::Args;

use crate::agent::Visitor;
use crate::cli::Globals;
use crate::container_id::ContainerId;
use crate::error::ContainerError;
use crate::life_cycle;
use crate::state::Root;

/// How long the program's execve may take.
const EXECUTES_WITHIN: Duration = Duration::from_secs(10);

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
        let id: ContainerId = self.id.parse()?;
        let folder = Root::new(globals.root.as_deref()).open(&id)?;
        let record = folder.read()?.ok_or(ContainerError::HasStopped)?;
        let mut wait = Visitor::new(folder.as_fd(), EXECUTES_WITHIN);
        life_cycle::start(&folder, &record, &mut wait)
    }
}
