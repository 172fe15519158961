//! `start`: finds the shim of the container's pod, or leaves one behind, and tells containerd where it listens.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::sys::stat::{Mode, umask};
use prost::Message;

use super::address::{self, Place};
use super::arguments::Arguments;
use super::messages::Any;
use super::server;
use super::settings::Options;
use crate::oci::bundle::CONFIG;
use crate::sys::process;

/// containerd starts a shim in the bundle's directory.
const BUNDLE: &str = ".";

/// Longest message with options, in bytes.
const LIMIT: u64 = 1 << 20;

/// Where cgroups of version 2 are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// How much sooner the kernel kills a shim than containerd, when the host has no memory left.
const OOM_ABOVE: i32 = 1;

/// The highest score.
const OOM_MAX: i32 = 1000;

/// Starts a shim for the bundle in the current directory, unless its pod has one, and prints the address.
///
/// # Errors
/// What keeps a shim from starting.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let socket = socket(&arguments)?;
    if UnixStream::connect(&socket).is_err() {
        leave(&socket, arguments)?;
    }
    tell(&socket)
}

/// Prints the address of the shim of the container's pod; false if there is none yet.
///
/// # Errors
/// What keeps it from being told.
pub fn finds(arguments: &Arguments) -> anyhow::Result<bool> {
    let socket = socket(arguments)?;
    Ok(UnixStream::connect(&socket).is_ok() && tell(&socket).map(|()| true)?)
}

/// Where the shim of the pod listens, by the bundle in the current directory.
fn socket(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    let bundle = Path::new(BUNDLE);
    let group = match bundle.join(CONFIG).exists() {
        true => Place::of(bundle, &arguments.id)?.group,
        // By the sandbox API, a shim is there before the sandbox has a specification.
        false => arguments.id.clone(),
    };
    Ok(address::socket(&arguments.address, &arguments.namespace, &group))
}

fn tell(socket: &Path) -> anyhow::Result<()> {
    let address = address::of(socket);
    address::write(Path::new(BUNDLE), &address).context("cannot write the file address in the bundle")?;
    let mut stdout = io::stdout();
    stdout.write_all(address.as_bytes()).and_then(|()| stdout.flush()).context("stdout")
}

/// Leaves a shim behind. What it inherits, such as score and cgroup, this process takes on before.
fn leave(socket: &Path, arguments: Arguments) -> anyhow::Result<()> {
    let given = given_options()?;
    let options = Options::parse(given.as_ref())?;
    adjust_score();
    if !options.shim_cgroup.is_empty() {
        join(&options.shim_cgroup)?;
    }
    let listener = listen(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    let serve = || match server::run(&listener, socket, arguments, given) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error:#}");
            1
        }
    };
    // SAFETY: this process has one thread.
    unsafe { process::clone(0, None, serve) }.context("cannot fork")?;
    Ok(())
}

/// The runtime's options, which containerd writes to stdin.
fn given_options() -> anyhow::Result<Option<Any>> {
    let mut bytes = Vec::new();
    io::stdin()
        .take(LIMIT)
        .read_to_end(&mut bytes)
        .context("cannot read the runtime's options from stdin")?;
    let options = Any::decode(&*bytes).context("the runtime's options on stdin")?;
    Ok((!options.type_url.is_empty()).then_some(options))
}

/// Only root can connect. A socket that nobody listens on any more is replaced.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(address::DIRECTORY)?;
    match fs::remove_file(socket) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(socket);
    umask(before);
    listener
}

/// containerd itself is the last to be killed.
fn adjust_score() {
    const FILE: &str = "oom_score_adj";
    let containerd = std::os::unix::process::parent_id();
    let score = fs::read_to_string(format!("/proc/{containerd}/{FILE}"))
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let score = score.unwrap_or(0).min(OOM_MAX - OOM_ABOVE) + OOM_ABOVE;
    if let Err(cause) = fs::write(format!("/proc/self/{FILE}"), score.to_string()) {
        tracing::debug!("the shim keeps its {FILE}: {cause}");
    }
}

fn join(cgroup: &str) -> anyhow::Result<()> {
    let directory = Path::new(CGROUPS).join(cgroup.trim_start_matches('/'));
    let join = || {
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("cgroup.procs"), std::process::id().to_string())
    };
    join().with_context(|| format!("ShimCgroup: cannot join {}", directory.display()))
}
