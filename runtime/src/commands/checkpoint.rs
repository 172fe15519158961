//! `stockade checkpoint`: known by name only.

use std::ffi::OsString;

use clap::Args;

/// Save a running container: refused, there are no snapshots yet.
#[derive(Debug, Args)]
pub struct Checkpoint {
    /// The arguments of runc's command; they are not read
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Checkpoint {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn run(self) -> anyhow::Result<()> {
        tracing::debug!("not read: {:?}", self.arguments);
        anyhow::bail!(
            "checkpoint is not supported: stockade cannot save a microVM yet, and the guest's processes are not the host's"
        )
    }
}
