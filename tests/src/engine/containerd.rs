//! containerd (1.6 in Debian 12, 1.7 in Debian 13) with its runc shim or stockade's own, and `ctr`.

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

/// What is between containerd and the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shim {
    /// containerd's own for runc, which executes `stockade` instead.
    Runcs,
    /// `containerd-shim-stockade-v2`.
    Own,
}

impl Shim {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Runcs, Self::Own];

    /// The options of `ctr run` that choose it.
    fn options(self) -> Vec<String> {
        match self {
            Self::Runcs => vec!["--runc-binary".to_owned(), text(&built("release/stockade")).to_owned()],
            Self::Own => vec!["--runtime".to_owned(), "io.containerd.stockade.v2".to_owned()],
        }
    }

    /// `--root` of the containers of `ctr`.
    pub fn root(self) -> &'static str {
        match self {
            Self::Runcs => "/run/containerd/runc/default",
            Self::Own => "/run/containerd/stockade/default",
        }
    }
}

/// containerd on a socket of its own.
pub struct Containerd {
    shim: Shim,
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
    /// Starts containerd, whose containers runc's shim has, and waits until it serves.
    pub fn new() -> Self {
        Self::with(Shim::Runcs)
    }

    /// As [`new`](Self::new), with this shim.
    pub fn with(shim: Shim) -> Self {
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
        for kept in ["/run/containerd/s", "/run/containerd/fifo", shim.root()] {
            fs::create_dir_all(kept).expect("directory");
        }
        let daemon = Self::start(directory.path());
        Self { shim, daemon, directory, before: Snapshot::take() }
    }

    fn start(directory: &Path) -> Daemon {
        // containerd finds shims there.
        let path = format!("{}:{}", text(&built("release")), std::env::var("PATH").unwrap_or_default());
        Daemon::start(
            Command::new("containerd").arg("--config").arg(directory.join("config.toml")).env("PATH", path),
            "containerd successfully booted",
            &directory.join("log"),
        )
    }

    /// Kills the daemon, and starts another one that finds what it was doing.
    pub fn restart_after_kill(&mut self) {
        self.while_killed(|| ());
    }

    /// As [`restart_after_kill`](Self::restart_after_kill), with something in between.
    pub fn while_killed(&mut self, meanwhile: impl FnOnce()) {
        self.daemon.kill();
        meanwhile();
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

    /// `ctr run` of a root file system, not yet started, with stockade.
    pub fn container_command(&self, options: &[&str], rootfs: &Path, id: &str, args: &[&str]) -> Command {
        let mut command = self.command(&["run"]);
        command.args(self.shim.options()).args(options).args(["--rootfs", text(rootfs), id]).args(args);
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
