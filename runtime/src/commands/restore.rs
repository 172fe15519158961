//! `stockade restore`: known by name only.

use std::ffi::OsString;

use clap::Args;

/// Restore a saved container: refused, there are no snapshots yet.
#[derive(Debug, Args)]
pub struct Restore {
    /// The arguments of runc's command; they are not read
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Restore {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn run(self) -> anyhow::Result<()> {
        tracing::debug!("not read: {:?}", self.arguments);
        anyhow::bail!(
            "restore is not supported: stockade cannot save a microVM yet, so there is nothing to restore"
        )
    }
}
