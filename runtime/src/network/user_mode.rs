//! User-mode networking: `pasta` of the package passt, which needs no privileges on the host and no configuration.
//!
//! It runs in the relay's PID namespace, so it ends with the container, however that ends, and nobody has to remember it.
//! It is not in the container's cgroup, whose memory limit is calculated for the VM.

use std::fs::File;
use std::io::{self, Read, pipe};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::WaitStatus;
use stockade_sys::descriptors;

use super::NetworkError;
use crate::sys::process::{self, Child};
use crate::sys::signals;

const PROGRAM: &str = "pasta";

/// The directories in which `pasta` is searched: engines call runtimes with almost no environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The directory in which the file for `pasta` is mounted, which hides the rest of it.
const DIRECTORY: &str = "/tmp";

/// How long `pasta` may take to make its interface.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Longest explanation that is shown, in bytes.
const LIMIT: u64 = 4096;

/// A request for user-mode networking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserNetwork {
    /// Published TCP ports: the host's and the container's.
    pub tcp: Vec<(u16, u16)>,
    /// Published UDP ports, likewise.
    pub udp: Vec<(u16, u16)>,
}

/// Makes an interface in the relay's network namespace; when this returns, the interface is configured.
///
/// # Errors
/// [`NetworkError::UserMode`].
pub fn start(network: &UserNetwork, relay: &Child) -> Result<(), NetworkError> {
    let failed = |cause: io::Error| NetworkError::UserMode(cause.to_string());
    let namespace = File::open(format!("/proc/{}/ns/net", relay.pid)).map_err(failed)?;
    let (mut output, writer) = pipe().map_err(failed)?;
    // An intermediate process does this, because a process that has entered another PID namespace may not be able to go
    // back.
    let launch = || match enter_and_launch(network, relay, &namespace, &writer) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(cause) => explain(&cause, &writer),
    };
    // SAFETY: commands have one thread.
    let child = unsafe { process::clone(0, None, launch) }.map_err(|errno| failed(errno.into()))?;
    drop(writer);
    if !child.pidfd.wait_end(READY_WITHIN) {
        child.kill();
        return Err(NetworkError::UserMode(format!("it is not ready after {READY_WITHIN:?}")));
    }
    if matches!(child.reap().map_err(failed)?, WaitStatus::Exited(_, 0)) {
        return Ok(());
    }
    let mut text = String::new();
    // The part that can be read explains more than the error of reading the rest.
    let _ = output.by_ref().take(LIMIT).read_to_string(&mut text);
    Err(NetworkError::UserMode(explanation(&text)))
}

/// The last line of `pasta`'s output, which says what went wrong; the lines before it are remarks.
fn explanation(text: &str) -> String {
    let mut lines = text.lines().map(str::trim);
    let line = lines.rfind(|line| !line.is_empty() && !line.starts_with("Failed to send"));
    line.unwrap_or("it has failed without saying why").to_owned()
}

/// Runs `pasta` in the relay's PID namespace; returns whether it has made its interface and gone to the background.
fn enter_and_launch(
    network: &UserNetwork,
    relay: &Child,
    namespace: &File,
    output: &io::PipeWriter,
) -> io::Result<bool> {
    setns(relay.pidfd.as_fd(), CloneFlags::CLONE_NEWPID)?;
    let body = || {
        let Err(cause) = execute(network, namespace, output);
        explain(&cause, output)
    };
    // SAFETY: this process is a copy of a command, which has one thread.
    let pasta = unsafe { process::clone(libc::CLONE_NEWNS, None, body) }?;
    Ok(matches!(pasta.reap()?, WaitStatus::Exited(_, 0)))
}

/// Tells the runtime the cause, and returns the exit status.
fn explain(cause: &io::Error, output: &io::PipeWriter) -> i32 {
    let text = match cause.kind() {
        io::ErrorKind::NotFound => "it is not installed (package passt)".to_owned(),
        _ => cause.to_string(),
    };
    // A creator that is gone needs no explanation.
    let _ = nix::unistd::write(output, text.as_bytes());
    1
}

fn execute(
    network: &UserNetwork,
    namespace: &File,
    output: &io::PipeWriter,
) -> io::Result<std::convert::Infallible> {
    let netns = offer(namespace)?;
    // SAFETY: this process is a child, which only executes a program.
    unsafe { descriptors::close_all_but(0, &[0, 1, 2, output.as_raw_fd()]) }?;
    signals::unblock_all()?;
    Err(Command::new(PROGRAM)
        .args(arguments(network))
        .arg("--netns")
        .arg(netns)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .exec())
}

/// Mounts a network namespace where `pasta` can open it by a path: as root, `pasta` first gives up the capability to
/// look into /proc/PID of others. Only this process sees the mount.
fn offer(namespace: &File) -> io::Result<String> {
    let none = None::<&Path>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), DIRECTORY, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, none)?;
    let path = format!("{DIRECTORY}/netns");
    File::create(&path)?;
    let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    mount(Some(source.as_str()), path.as_str(), none, MsFlags::MS_BIND, none)?;
    Ok(path)
}

fn arguments(network: &UserNetwork) -> Vec<String> {
    // The guest must not reach the host's loopback, and its ports are published only if the annotation asks for it.
    let mut arguments: Vec<String> =
        ["--config-net", "--quiet", "--no-map-gw", "-T", "none", "-U", "none"].map(str::to_owned).into();
    if nix::unistd::geteuid().is_root() {
        // Otherwise it would become nobody, who may not enter the namespace. It gives up its capabilities in any case.
        arguments.extend(["--runas", "0:0"].map(str::to_owned));
    }
    for (option, ports) in [("-t", &network.tcp), ("-u", &network.udp)] {
        let ports: Vec<String> =
            ports.iter().map(|(host, container)| format!("{host}:{container}")).collect();
        let ports = if ports.is_empty() { "none".to_owned() } else { ports.join(",") };
        arguments.extend([option.to_owned(), ports]);
    }
    arguments
}

#[cfg(test)]
#[path = "user_mode_test.rs"]
mod tests;
