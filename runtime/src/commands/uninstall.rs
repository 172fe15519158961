//! `stockade uninstall`.

use std::io::{self, Write};

use clap::Args;

use super::install::InstallOptions;
use crate::install::{self, Engines};

/// Undo what install has changed in an engine's files.
#[derive(Debug, Args)]
#[command(
    after_help = "The engine's file is then as it was before. What others have changed in it since then stays.

Examples:
  stockade uninstall --podman
  stockade uninstall --docker --containerd --dry-run"
)]
pub struct Uninstall {
    #[command(flatten)]
    engines: Engines,
    #[command(flatten)]
    options: InstallOptions,
}

impl Uninstall {
    /// Changes the engines' files back and prints the differences.
    ///
    /// # Errors
    /// [`install::InstallError`]: a file that could not be read or understood was not changed.
    pub fn run(self) -> anyhow::Result<()> {
        let mut changes = Vec::new();
        for engine in self.engines.named() {
            match install::uninstall(engine, &self.options.prefix)? {
                Some(change) => changes.push(change),
                None => writeln!(io::stdout(), "{}: nothing was installed", engine.name())?,
            }
        }
        self.options.make(changes)
    }
}
