//! `stockade install`.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;

use crate::install::{self, Engine, Engines};

/// Make this runtime known to an engine: podman, Docker, containerd, CRI-O.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints what changes in the engine's files. dockerd reads daemon.json again on `systemctl reload docker`; containerd and CRI-O read \
their files on `systemctl restart`; podman reads its files each time. BuildKit runs the steps of `docker build`; it ignores the \
runtimes of daemon.json and uses the command in DOCKER_BUILDKIT_RUNC_COMMAND. `install --docker` sets that in a drop-in of \
docker.service, which has an effect after `systemctl daemon-reload` and `systemctl restart docker`.

Examples:
  stockade install --podman; podman --runtime stockade run --network none debian uname -a
  stockade install --docker --containerd --dry-run
  stockade install --crio --binary /opt/stockade/bin/stockade"
)]
pub struct Install {
    #[command(flatten)]
    engines: Engines,
    #[command(flatten)]
    options: InstallOptions,
    /// The runtime's binary [default: this one]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// For containerd, and Docker from 23 on: use the shim for runc, also where containerd-shim-stockade-v2 is installed beside the
    /// binary
    #[arg(long)]
    runc_shim: bool,
}

/// Options of install and uninstall.
#[derive(Debug, Args)]
pub struct InstallOptions {
    /// Only print what would change
    #[arg(long)]
    pub dry_run: bool,
    /// Directory that stands for the root of the file system
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub prefix: PathBuf,
}

impl Install {
    /// Changes the engines' files and prints the differences.
    ///
    /// # Errors
    /// [`install::InstallError`]: a file that could not be read or understood was not changed.
    pub fn run(self) -> anyhow::Result<()> {
        let binary = match self.binary {
            Some(binary) => std::path::absolute(&binary).context("--binary")?,
            None => std::env::current_exe().context("cannot find out where stockade itself is")?,
        };
        let binary = binary.to_str().context("the path of the binary is not UTF-8")?;
        let runtime = install::Runtime { binary, runc_shim: self.runc_shim };
        let engines = self.engines.named();
        let has_shims = |engine: &Engine| matches!(engine, Engine::Containerd | Engine::Docker);
        ensure!(
            !self.runc_shim || engines.iter().any(has_shims),
            "--runc-shim is for --containerd and --docker"
        );
        let changes: Result<Vec<_>, _> = engines
            .into_iter()
            .map(|engine| install::install(engine, &self.options.prefix, runtime))
            .collect();
        self.options.make(changes?)
    }
}

impl InstallOptions {
    /// Prints the changes, and makes them unless `--dry-run` is given.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn make(&self, changes: Vec<install::Change>) -> anyhow::Result<()> {
        for change in changes {
            io::stdout().write_all(change.describe().as_bytes())?;
            if !self.dry_run {
                change.make()?;
            }
        }
        Ok(())
    }
}
