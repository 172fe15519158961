//! containerd (1.6 in Debian 12, 1.7 in Debian 13) with its runc shim, and `ctr`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use super::Daemon;
use crate::cli::{Outcome, built, text};
use crate::host::Snapshot;

/// Longest that one awaited event may take before its test fails.
const LIMIT: Duration = Duration::from_secs(60);

/// containerd on a socket of its own.
pub struct Containerd {
    // The daemon ends before its directory goes.
    daemon: Daemon,
    directory: TempDir,
    before: Snapshot,
}

impl Default for Containerd {
    fn default() -> Self {
        Self::new()
    }
}

impl Containerd {
    /// Starts containerd and waits until it serves.
    pub fn new() -> Self {
        let directory = crate::bundle::directory();
        let config = directory.path().join("config.toml");
        let path = directory.path().display();
        fs::write(
            &config,
            format!(
                "version = 2\nroot = \"{path}/root\"\nstate = \"{path}/state\"\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
                 [grpc]\naddress = \"{path}/socket\"\n"
            ),
        )
        .expect("write containerd's config");
        // What shim, `ctr` and runtime keep their things in stays.
        for kept in ["/run/containerd/s", "/run/containerd/fifo", "/run/containerd/runc/default"] {
            fs::create_dir_all(kept).expect("directory");
        }
        let daemon = Self::start(directory.path());
        Self { daemon, directory, before: Snapshot::take() }
    }

    fn start(directory: &Path) -> Daemon {
        Daemon::start(
            Command::new("containerd").arg("--config").arg(directory.join("config.toml")),
            "containerd successfully booted",
            &directory.join("log"),
        )
    }

    /// Kills the daemon, and starts another one that finds what it was doing.
    pub fn restart_after_kill(&mut self) {
        self.daemon.kill();
        self.daemon = Self::start(self.directory.path());
        // Another process, but as many as before.
        let now = Snapshot::take();
        self.before.processes.retain(|_, name| name != "containerd");
        let daemon = now.processes.into_iter().filter(|(_, name)| name == "containerd");
        self.before.processes.extend(daemon);
    }

    /// A `ctr` command, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(args);
        command
    }

    /// Runs a `ctr` command to its end.
    pub fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(args), b"")
    }

    /// `ctr run` of a root file system, not yet started, with stockade as the shim's runtime binary.
    pub fn container_command(&self, options: &[&str], rootfs: &Path, id: &str, args: &[&str]) -> Command {
        let mut command = self.command(&["run", "--runc-binary", text(&built("release/stockade"))]);
        command.args(options).args(["--rootfs", text(rootfs), id]).args(args);
        command
    }

    /// `ctr run` of a root file system.
    pub fn container(&self, options: &[&str], rootfs: &Path, id: &str, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.container_command(options, rootfs, id, args), b"")
    }

    /// Follows the daemon's events.
    pub fn events(&self) -> Events {
        let mut child = self.command(&["events"]).stdout(Stdio::piped()).spawn().expect("ctr events");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
        Events { child, lines: receive }
    }

    /// Where it serves.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// A directory that the test may use.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Fails the test if containers have left anything behind.
    #[track_caller]
    pub fn assert_clean(&self) {
        self.before.assert_same_now();
    }
}

/// `ctr events`, one event a line.
pub struct Events {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Events {
    /// Waits for the next event of this topic, for example `/tasks/exit`.
    #[track_caller]
    pub fn wait_for(&self, topic: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(LIMIT).unwrap_or_else(|e| panic!("no event {topic}: {e}"));
            if line.split_whitespace().any(|word| word == topic) {
                return line;
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
