//! Real callers: podman with conmon, containerd with its runc shim and `ctr` or the CRI, Docker. Each as Debian 12 ships it, or as
//! Debian 13 does where `tests/with-debian` runs the test; with storage of its own, stockade as the runtime and an image of
//! busybox made here.

mod containerd;
mod docker;
mod image;
mod node;
mod podman;
mod rootless;
mod shim;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub use containerd::{Containerd, Events, Shim};
pub use docker::Docker;
pub use image::{NGINX_PAGE, NGINX_SERVES};
pub use node::{BY_RUNCS_SHIM, Node, PAUSE, RUNTIME_ROOT, WEB};
pub use podman::Podman;
pub use rootless::RootlessPodman;
pub use shim::{Pending, ShimSocket, field, number};

use crate::bundle::make_rootfs;
use crate::cli::text;

/// What the image is called in every engine.
pub const IMAGE: &str = "busybox";

/// A tar of busybox in `directory`, without the directories that only mounts need: images made from scratch lack them.
fn image_tar(directory: &Path) -> PathBuf {
    let rootfs = directory.join("image");
    make_rootfs(&rootfs);
    for mount_point in ["dev", "proc", "sys"] {
        std::fs::remove_dir(rootfs.join(mount_point)).expect("remove a mount point");
    }
    let tar = directory.join("image.tar");
    let status =
        Command::new("tar").args(["-C", text(&rootfs), "-cf", text(&tar), "."]).status().expect("tar");
    assert!(status.success(), "tar: {status}");
    tar
}

/// An engine's own process, ended with the value.
struct Daemon(Child);

impl Daemon {
    /// Starts it and waits until it has logged `ready`; its log goes to `log`.
    fn start(command: &mut Command, ready: &str, log: &Path) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        let (mut line, mut all) = (String::new(), String::new());
        while !line.contains(ready) {
            line.clear();
            assert_ne!(lines.read_line(&mut line).expect("log"), 0, "{command:?} ended at start:\n{all}");
            all += &line;
        }
        let mut rest = File::create(log).expect("log");
        std::thread::spawn(move || std::io::copy(&mut lines, &mut rest));
        Self(child)
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Daemon {
    /// Ends it without a chance to put anything in order.
    fn kill(&mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SAFETY: kill takes two integers.
        unsafe { libc::kill(self.pid(), libc::SIGTERM) };
        let _ = self.0.wait();
    }
}
