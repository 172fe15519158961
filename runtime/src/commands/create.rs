//! `stockade create`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::life_cycle::{self, Request};
use crate::oci::container_id::ContainerId;
use crate::options::Globals;

/// Create a container; its process waits for `start`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  stockade create --bundle bundle mine\n  stockade create mine --bundle bundle --pid-file mine.pid\n  stockade create -b bundle --console-socket tty.sock mine"
)]
pub struct Create {
    /// The container's ID
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    options: CreateOptions,
}

/// Options of create and run.
#[derive(Debug, Args)]
pub struct CreateOptions {
    /// Directory of the bundle
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub bundle: PathBuf,
    /// File to read instead of the bundle's config.json
    #[arg(short = 'f', long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Socket to send the terminal's master to
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Socket to send a pidfd of the container's process to
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// File to write the PID of the container's process to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Pass descriptors 3 to 2+N into the container: pipes, stream sockets, terminals, /dev/null, and the content of
    /// regular files
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// No effect: the container always pivots to its root file system, in the guest
    #[arg(long)]
    no_pivot: bool,
    /// No effect: keyrings are the guest kernel's own
    #[arg(long)]
    no_new_keyring: bool,
    /// No effect: stockade never is a subreaper
    #[arg(long)]
    no_subreaper: bool,
}

impl CreateOptions {
    /// The request that these options make.
    pub fn request<'a>(&'a self, globals: &'a Globals, id: &'a ContainerId, detached: bool) -> Request<'a> {
        self.mention_unused();
        Request {
            globals,
            id,
            bundle: &self.bundle,
            config: self.config.as_deref(),
            pid_file: self.pid_file.as_deref(),
            console_socket: self.console_socket.as_deref(),
            pidfd_socket: self.pidfd_socket.as_deref(),
            preserve_fds: self.preserve_fds,
            detached,
        }
    }

    fn mention_unused(&self) {
        let unused = [
            ("--no-pivot", self.no_pivot),
            ("--no-new-keyring", self.no_new_keyring),
            ("--no-subreaper", self.no_subreaper),
        ];
        for (name, _) in unused.into_iter().filter(|(_, given)| *given) {
            tracing::debug!("{name} has no effect");
        }
    }
}

impl Create {
    /// Creates the container and leaves it to its relay.
    ///
    /// # Errors
    /// What failed; nothing is left of the container then.
    pub fn run(self, globals: &Globals) -> anyhow::Result<()> {
        let id: ContainerId = self.id.parse()?;
        create(&self.options.request(globals, &id, true))
    }
}

/// Creates a container and leaves it to its relay.
///
/// # Errors
/// As [`Create::run`].
pub fn create(request: &Request<'_>) -> anyhow::Result<()> {
    let created = life_cycle::create(request)?;
    created.relay.commit().context("cannot leave the container running")?;
    created.directory.finish();
    Ok(())
}
