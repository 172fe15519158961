//! `stockade delete`.

use clap::Args;

use crate::life_cycle;
use crate::oci::container_id::ContainerId;
use crate::options::Globals;
use crate::state::ContainerError;
use crate::state::Root;

/// Remove a container and everything it holds.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  stockade delete mine\n  stockade delete --force mine\n  stockade delete --force --regex '^job-'"
)]
pub struct Delete {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
    /// Kill the container first if it runs; succeed if it does not exist
    #[arg(short, long)]
    force: bool,
    /// ID is a regular expression: remove every container whose ID it matches
    #[arg(short, long)]
    regex: bool,
}

impl Delete {
    /// Removes the container.
    ///
    /// # Errors
    /// [`ContainerError`], or what could not be removed.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let root = Root::new(globals.root.as_deref());
        root.named(&self.id, self.regex)?.iter().map(|id| self.remove(&root, id)).fold(Ok(()), Result::and)
    }

    fn remove(&self, root: &Root, id: &ContainerId) -> anyhow::Result<()> {
        match life_cycle::remove(root, id, self.force) {
            // A second process of an engine may delete again what the first has deleted.
            Err(error)
                if self.force && matches!(error.downcast_ref(), Some(ContainerError::DoesNotExist(_))) =>
            {
                tracing::debug!("{error}");
                Ok(())
            }
            result => result,
        }
    }
}
