//! podman of a user who is not root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{IMAGE, image_tar};
use crate::cli::{Outcome, built, text};
use crate::host::{self, Snapshot};

/// The user, who is in no file of the host.
const USER: &str = "builder";
const UID: u32 = 64_242;

/// What makes them one: covered in a mount namespace of each command, so that the host's files stay.
const COVERED: [(&str, &str); 3] = [
    ("passwd", "root:x:0:0:root:/root:/bin/sh\nbuilder:x:64242:64242::/:/bin/sh\n"),
    ("subuid", "builder:1000000:65536\n"),
    ("subgid", "builder:1000000:65536\n"),
];

/// The binaries and the guest as `make install` lays them out: the user may not see the checkout.
const INSTALLED: [(&str, &str); 4] = [
    ("release/stockade", "bin/stockade"),
    ("release/stockade-vmm", "libexec/stockade/stockade-vmm"),
    ("guest/vmlinux", "share/stockade/vmlinux"),
    ("guest/initramfs", "share/stockade/initramfs"),
];

/// Rootless podman with storage of its own and stockade as its runtime.
pub struct RootlessPodman {
    directory: TempDir,
    before: Snapshot,
}

impl Default for RootlessPodman {
    fn default() -> Self {
        Self::new()
    }
}

impl RootlessPodman {
    /// Makes the user and the storage, and imports the image.
    pub fn new() -> Self {
        let directory = crate::bundle::directory();
        let before = Snapshot::take();
        let mut podman = Self { directory, before };
        let at = |name: &str| podman.path().join(name);
        fs::set_permissions(podman.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        for (name, content) in COVERED {
            fs::write(at(name), content).expect("file");
        }
        for (from, to) in INSTALLED {
            fs::create_dir_all(at(to).parent().expect("a directory")).expect("directory");
            fs::copy(built(from), at(to)).expect("install");
        }
        for owned in ["home", "run"] {
            fs::create_dir(at(owned)).expect("directory");
            chown(at(owned), Some(UID), Some(UID)).expect("owner");
        }
        let tar = image_tar(podman.path());
        podman.run(&["import", text(&tar), IMAGE]).success();
        podman.before = Snapshot::take();
        podman
    }

    /// A podman command, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let script = "directory=$1; shift; \
                      for file in passwd subuid subgid; do mount --bind $directory/$file /etc/$file || exit; done; \
                      exec setpriv --reuid 64242 --regid 64242 --clear-groups env -i \
                      PATH=/usr/bin:/usr/sbin:/bin:/sbin USER=builder HOME=$directory/home XDG_RUNTIME_DIR=$directory/run \
                      podman --cgroup-manager cgroupfs --events-backend file --runtime $directory/bin/stockade \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script, USER, text(self.path())])
            .args(args)
            .current_dir("/");
        command
    }

    /// Runs a podman command to its end.
    pub fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(args), b"")
    }

    /// A directory that the test may use.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Fails the test if containers have left anything behind, where the host or the user keeps such things.
    #[track_caller]
    pub fn assert_clean(&self) {
        for name in ["conmon", "podman"] {
            // But not the one that holds the user's namespaces.
            host::pids_named(name).into_iter().filter(|&pid| self.is_new(pid)).for_each(host::wait_for_end);
        }
        let states = self.path().join("run/stockade");
        let states: Vec<_> =
            fs::read_dir(states).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(states, [] as [std::ffi::OsString; 0], "states of containers");
        self.before.assert_same_now();
    }

    fn is_new(&self, pid: i32) -> bool {
        !self.before.processes.contains_key(&pid)
    }
}

impl Drop for RootlessPodman {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.command(&["rm", "--force", "--all", "--time", "0"]).output();
        }
        // Ends the process that holds the user's namespaces.
        let _ = self.command(&["system", "migrate"]).output();
    }
}
