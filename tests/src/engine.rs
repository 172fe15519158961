//! Real callers: podman with conmon, containerd with its runc shim and `ctr`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::cli::{Outcome, built, text};

/// podman, with stockade as its runtime.
pub struct Podman;

impl Podman {
    /// A podman command, not yet started.
    pub fn command(args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime"])
            .arg(built("release/stockade"))
            .args(args);
        command
    }

    /// Runs a podman command to its end.
    pub fn run(args: &[&str]) -> Outcome {
        Outcome::of(&mut Self::command(args), b"")
    }
}

/// containerd on a socket of its own.
pub struct Containerd {
    folder: TempDir,
    daemon: Child,
}

impl Containerd {
    /// Starts containerd and waits until it serves.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("containerd-").tempdir().expect("temporary folder");
        let config = folder.path().join("config.toml");
        let path = folder.path().display();
        fs::write(
            &config,
            format!(
                "version = 2\nroot = \"{path}/root\"\nstate = \"{path}/state\"\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
                 [grpc]\naddress = \"{path}/socket\"\n"
            ),
        )
        .expect("write containerd's config");
        let mut daemon = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start containerd");
        let mut log = BufReader::new(daemon.stderr.take().expect("piped"));
        let mut seen = String::new();
        while !seen.contains("containerd successfully booted") {
            seen.clear();
            assert_ne!(log.read_line(&mut seen).expect("containerd's log"), 0, "containerd ended at start");
        }
        let mut rest = File::create(folder.path().join("log")).expect("containerd's log");
        std::thread::spawn(move || std::io::copy(&mut log, &mut rest));
        Self { folder, daemon }
    }

    /// A `ctr` command, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.folder.path().join("socket")).args(args);
        command
    }

    /// Runs a `ctr` command to its end.
    pub fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(args), b"")
    }

    /// `ctr run` of a root file system with stockade as the shim's runtime binary.
    pub fn run_rootfs(&self, rootfs: &Path, id: &str, args: &[&str]) -> Outcome {
        let stockade = built("release/stockade");
        let mut all = vec!["run", "--rm", "--runc-binary", text(&stockade), "--rootfs", text(rootfs), id];
        all.extend(args);
        self.run(&all)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // SAFETY: kill takes two integers.
        unsafe { libc::kill(self.daemon.id() as i32, libc::SIGTERM) };
        let _ = self.daemon.wait();
    }
}
