//! `delete`: removes what a shim that has died has left of a container, without a shim.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use anyhow::Context;
use prost::Message;

use super::address::{self, Place};
use super::arguments::Arguments;
use super::execute;
use super::messages::Deleted;
use super::rootfs;
use super::settings::{Options, Settings};

/// The runtime's log, in the bundle.
const LOG: &str = "log.json";

/// Status of a task that was killed.
const KILLED: u32 = 137;

/// Removes the container, and prints how it has ended.
///
/// # Errors
/// What could not be removed.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let bundle = arguments.bundle.clone().unwrap_or_else(|| PathBuf::from("."));
    let settings = Settings::read(&bundle).unwrap_or_else(|| {
        let place = Place { group: arguments.id.clone(), is_systemds: false };
        Settings::new(&Options::default(), &place, &arguments.namespace)
    });
    let mut command = execute::command(&settings, &bundle.join(LOG), arguments.debug);
    command.args([OsStr::new("delete"), OsStr::new("--force"), OsStr::new(&arguments.id)]);
    // Its errors go on to containerd.
    let removed = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let removed =
        removed.with_context(|| format!("cannot execute the runtime {}", settings.binary.display()))?;
    rootfs::unmount_all(&bundle)?;
    remove_socket(&bundle);
    if !removed.success() {
        anyhow::bail!("container {} could not be removed", arguments.id);
    }
    let deleted = Deleted { pid: 0, exit_status: KILLED, exited_at: Some(SystemTime::now().into()) };
    io::stdout().write_all(&deleted.encode_to_vec()).context("stdout")
}

/// Removes the socket of the shim, unless one listens there: another container of the pod may have one again.
fn remove_socket(bundle: &Path) {
    let Some(socket) = address::read(bundle) else { return };
    if UnixStream::connect(&socket).is_err_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused) {
        // If it stays, the next shim of this pod replaces it.
        let _ = fs::remove_file(socket);
    }
}
