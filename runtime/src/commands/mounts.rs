//! `stockade mounts`, crun's command: known by name only.

use std::ffi::OsString;

use clap::Args;

/// Change a container's mounts: refused, they are fixed when it is created.
#[derive(Debug, Args)]
pub struct Mounts {
    /// `add` or `remove`, and the other arguments of crun's command; they are not read
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Mounts {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn run(self) -> anyhow::Result<()> {
        tracing::debug!("not read: {:?}", self.arguments);
        anyhow::bail!(
            "mounts is not supported: the host's trees are shared with the microVM when the container is created; name \
             them in config.json's mounts"
        )
    }
}
