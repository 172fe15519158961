//! podman and conmon: 4.3 in Debian 12, 5.4 in Debian 13.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use super::{IMAGE, image_tar};
use crate::cli::{Outcome, built, text};
use crate::host::{self, Snapshot};

/// podman with storage of its own and stockade as its runtime.
pub struct Podman {
    directory: TempDir,
    before: Snapshot,
}

impl Default for Podman {
    fn default() -> Self {
        Self::new()
    }
}

impl Podman {
    /// Makes the storage and imports the image.
    pub fn new() -> Self {
        let directory = crate::bundle::directory();
        // What every runtime and podman itself leave for the next container.
        for kept in ["/run/stockade", "/sys/fs/cgroup/libpod_parent/conmon"] {
            fs::create_dir_all(kept).expect("directory");
        }
        let tar = image_tar(directory.path());
        let mut podman = Self { directory, before: Snapshot::take() };
        podman.run(&["import", text(&tar), IMAGE]).success();
        podman.unmount_storage();
        podman.before = Snapshot::take();
        podman
    }

    /// As [`new`](Self::new), for containers on podman's bridge.
    pub fn with_network() -> Self {
        let mut podman = Self::new();
        // What netavark and podman leave with the first container of all, whatever the runtime.
        podman.run(&["--runtime", "crun", "run", "--rm", "--network", "podman", IMAGE, "true"]).success();
        podman.settle();
        podman.before = Snapshot::take();
        podman
    }

    /// A podman command, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_with_cgroups("cgroupfs", args)
    }

    /// As [`command`](Self::command), with another manager of cgroups.
    pub fn command_with_cgroups(&self, manager: &str, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        for (option, directory) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.path().join(directory));
        }
        command
            .args(["--storage-driver", "overlay", "--cgroup-manager", manager, "--events-backend", "file"])
            .arg("--runtime")
            .arg(built("release/stockade"))
            .args(args);
        command
    }

    /// Runs a podman command to its end.
    pub fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(args), b"")
    }

    /// `run` of the image without a network, not yet started.
    pub fn container_command(&self, options: &[&str], args: &[&str]) -> Command {
        let mut command = self.command(&["run", "--network", "none"]);
        command.args(options).arg(IMAGE).args(args);
        command
    }

    /// Runs the image without a network.
    pub fn container(&self, options: &[&str], args: &[&str]) -> Outcome {
        Outcome::of(&mut self.container_command(options, args), b"")
    }

    /// One value of a container, by a Go template.
    pub fn inspect(&self, container: &str, template: &str) -> String {
        let outcome = self.run(&["inspect", "--format", template, container]).success();
        outcome.stdout.trim_end().to_owned()
    }

    /// A directory that the test may use.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Fails the test if containers have left anything behind.
    #[track_caller]
    pub fn assert_clean(&self) {
        self.settle();
        self.before.assert_same_now();
    }

    /// Waits for conmon, which may still be running podman's own cleanup, but then ends.
    fn settle(&self) {
        for name in ["conmon", "podman"] {
            host::pids_named(name).into_iter().for_each(host::wait_for_end);
        }
        self.unmount_storage();
    }

    /// Undoes the bind mount of the storage on itself that podman leaves, whatever the runtime.
    fn unmount_storage(&self) {
        let _ = umount2(&self.path().join("root/overlay"), MntFlags::MNT_DETACH);
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // What a failed test has left would be in the way of the others.
        if std::thread::panicking() {
            let _ = self.command(&["rm", "--force", "--all", "--time", "0"]).output();
        }
        self.unmount_storage();
    }
}
