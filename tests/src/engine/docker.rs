//! Docker: 20.10 in Debian 12, 26 in Debian 13.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Containerd, Daemon, IMAGE, image_tar};
use crate::cli::{Outcome, built, text};
use crate::host::Snapshot;

/// Debian's client; another one may come earlier in PATH.
const CLIENT: &str = "/usr/bin/docker";

/// Set where Docker, from 23 on, is to use stockade's own shim instead of containerd's for runc.
const OWN_SHIM: &str = "DOCKER_WITH_OWN_SHIM";

/// dockerd on a socket of its own, with a containerd of its own and stockade as its default runtime.
pub struct Docker {
    // The daemons end before their directories go, in this order.
    _daemon: Daemon,
    // Not one that dockerd starts: for that it waits 15 seconds, which may be too short in the lab.
    _containerd: Containerd,
    directory: TempDir,
    before: Snapshot,
}

impl Default for Docker {
    fn default() -> Self {
        Self::new()
    }
}

impl Docker {
    /// Starts the daemon, waits until it serves and imports the image.
    pub fn new() -> Self {
        Self::with_runtimes(&json!({}))
    }

    /// As [`new`](Self::new), with these runtimes besides, as daemon.json has them.
    pub fn with_runtimes(runtimes: &Value) -> Self {
        // The shims' directories stay.
        for shim in ["runc", "stockade"] {
            std::fs::create_dir_all(format!("/run/containerd/{shim}/moby")).expect("directory");
        }
        let containerd = Containerd::new();
        let directory = crate::bundle::directory();
        let at = |name: &str| directory.path().join(name);
        let runtime = match std::env::var_os(OWN_SHIM) {
            Some(_) => json!({ "runtimeType": built("release/containerd-shim-stockade-v2") }),
            None => json!({ "path": built("release/stockade") }),
        };
        let mut config = json!({
            "runtimes": { "stockade": runtime },
            "default-runtime": "stockade",
            "hosts": [format!("unix://{}", at("socket").display())],
            "containerd": containerd.socket(), "data-root": at("root"), "exec-root": at("exec"), "pidfile": at("pid"),
            "storage-driver": "overlay2",
            // Networks are none of these tests' subjects, and the host's packet filter is left alone.
            "bridge": "none", "iptables": false, "ip6tables": false,
        });
        for (name, runtime) in runtimes.as_object().expect("runtimes by name") {
            config["runtimes"][name] = runtime.clone();
        }
        std::fs::write(at("daemon.json"), config.to_string()).expect("write daemon.json");
        let daemon = Daemon::start(
            Command::new("/usr/sbin/dockerd").arg("--config-file").arg(at("daemon.json")),
            "API listen on",
            &at("log"),
        );
        let tar = image_tar(directory.path());
        let mut docker =
            Self { _daemon: daemon, _containerd: containerd, directory, before: Snapshot::take() };
        docker.run(&["import", text(&tar), IMAGE]).success();
        docker.before = Snapshot::take();
        docker
    }

    /// A docker command, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(CLIENT);
        command.arg("--host").arg(format!("unix://{}", self.path().join("socket").display())).args(args);
        command
    }

    /// Waits until the daemon has told of this event of a container, or has told before.
    pub fn wait_for_event(&self, event: &str, container: &str) {
        let filters = [format!("event={event}"), format!("container={container}")];
        let mut command =
            self.command(&["events", "--since", "1h", "--filter", &filters[0], "--filter", &filters[1]]);
        let mut events = command.stdout(Stdio::piped()).spawn().expect("docker events");
        let mut line = String::new();
        let stdout = events.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("an event");
        events.kill().and_then(|()| events.wait()).expect("docker events ends");
        assert!(line.contains(event), "docker events: {line:?}");
    }

    /// Runs a docker command to its end.
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
