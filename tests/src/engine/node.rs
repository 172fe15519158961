//! A node of Kubernetes without its kubelet: containerd (1.6 in Debian 12, 1.7 in Debian 13, 2 in unstable) with its CRI plugin, CNI plugins and images.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, umount2};
use serde_json::json;
use tempfile::TempDir;

use super::{Daemon, Shim, image};
use crate::cli::{Outcome, built, text};
use crate::host::{self, Snapshot};

/// The image of busybox and nginx.
pub const WEB: &str = "localhost/web:latest";

/// The image of the sandboxes: busybox.
pub const PAUSE: &str = "localhost/pause:latest";

/// The bridge of the pods. The plugins make it with the first pod and leave it, so it is made before.
const BRIDGE: &str = "cni0";

/// The address of the node on the bridge.
const GATEWAY: &str = "10.89.0.1/16";

/// Debian's CNI plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// Those of them that the pods' network needs.
const NETWORK: [&str; 5] = ["bridge", "firewall", "host-local", "loopback", "portmap"];

/// Below it are the shims' states of stockade, which is their `--root`.
pub const RUNTIME_ROOT: &str = "/run/containerd/stockade/k8s.io";

/// The runtime handler of stockade by runc's shim.
pub const BY_RUNCS_SHIM: &str = "stockade-by-runcs-shim";

/// The runtime handler of stockade's own shim by the sandbox API.
const BY_SANDBOX_API: &str = "stockade-by-sandbox-api";

/// containerd that serves the CRI on a socket of its own, with the runtime handlers `stockade`, [`BY_RUNCS_SHIM`] and `runc`.
pub struct Node {
    // The daemon ends before its directory goes.
    daemon: Option<Daemon>,
    directory: TempDir,
    before: Snapshot,
    /// The runtime handler of the pods.
    pub handler: &'static str,
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    /// Starts containerd, waits until it serves and imports the images.
    pub fn new() -> Self {
        let mut node = Self::bare();
        node.import(&image::web(node.path(), WEB));
        node.before = Snapshot::take();
        node
    }

    /// As [`new`](Self::new), with pods that have this shim.
    pub fn with(shim: Shim) -> Self {
        let handler = match shim {
            Shim::Own => "stockade",
            Shim::Runcs => BY_RUNCS_SHIM,
        };
        let mut node = Self::new();
        node.handler = handler;
        node
    }

    /// The runtime handler of pods by the sandbox API, which containerd has since version 2.
    pub fn sandbox_api() -> Option<&'static str> {
        let version = Outcome::of(Command::new("containerd").arg("--version"), b"").success().stdout;
        let number = version.split_whitespace().nth(2)?.trim_start_matches('v');
        let major: u32 = number.split('.').next()?.parse().ok()?;
        (major >= 2).then_some(BY_SANDBOX_API)
    }

    /// As [`new`](Self::new), with no image but the sandboxes'.
    pub fn bare() -> Self {
        let directory = crate::bundle::directory();
        // What containerd, shims, `ctr` and the plugins keep their things in stays.
        for kept in [
            "/run/containerd/s",
            "/run/containerd/fifo",
            RUNTIME_ROOT,
            "/run/netns",
            "/sys/fs/cgroup/kubepods",
        ] {
            fs::create_dir_all(kept).expect("directory");
        }
        ip(&["link", "add", BRIDGE, "type", "bridge"]);
        ip(&["addr", "add", GATEWAY, "dev", BRIDGE]);
        ip(&["link", "set", BRIDGE, "up"]);
        let mut node = Self { daemon: None, directory, before: Snapshot::take(), handler: "stockade" };
        node.write_network();
        node.write_config();
        node.start();
        node.import(&image::pause(node.path(), PAUSE));
        node.before = Snapshot::take();
        node
    }

    /// Multiplies the time that containerd gives its shims, for more pods at once than an emulated processor can serve in two seconds.
    pub fn with_patience(mut self, times: usize) -> Self {
        // containerd-config.toml(5), with the times that are built in.
        let limits = [("task.state", 2), ("shim.cleanup", 5), ("shim.load", 5), ("shim.shutdown", 3)];
        let limits =
            limits.map(|(name, s)| format!("\"io.containerd.timeout.{name}\" = \"{}s\"\n", s * times));
        let file = self.path().join("etc/containerd/config.toml");
        let config = fs::read_to_string(&file).expect("containerd's config");
        fs::write(&file, format!("{config}\n[timeouts]\n{}", limits.concat()))
            .expect("write containerd's config");
        self.restart();
        self
    }

    /// Starts containerd and waits until it serves.
    pub fn start(&mut self) {
        self.daemon = Some(Daemon::start(
            Command::new("containerd").arg("--config").arg(self.path().join("etc/containerd/config.toml")),
            "containerd successfully booted",
            &self.path().join("containerd.log"),
        ));
    }

    /// Starts containerd again, which has been killed.
    pub fn restart(&mut self) {
        self.before.processes.remove(&self.pid());
        self.daemon = None;
        self.start();
        self.before.processes.insert(self.pid(), "containerd".to_owned());
    }

    /// Removes the network namespaces that are left, with the addresses of their pods. containerd knows nothing of a
    /// sandbox in whose making it was killed, and so they stay, whatever the runtime.
    ///
    /// # Panics
    /// Where there is more in one than CNI plugins put there.
    pub fn remove_forgotten_networks(&self) {
        for namespace in self.new_files("/run/netns") {
            let enter = format!("--net={}", namespace.display());
            let run = |words: &[&str]| Outcome::of(Command::new("nsenter").arg(&enter).args(words), b"");
            let links = run(&["ip", "-o", "link"]).success().stdout;
            let names: Vec<_> = links.lines().filter_map(|line| line.split([':', '@']).nth(1)).collect();
            assert!(names.iter().all(|name| [" lo", " eth0"].contains(name)), "{links}");
            let filters = run(&["tc", "filter", "show", "dev", "eth0", "ingress"]).stdout;
            assert_eq!(filters, "", "filters of eth0");
            let _ = umount2(&namespace, MntFlags::MNT_DETACH);
            fs::remove_file(namespace).expect("remove a namespace's file");
        }
        for address in self.addresses() {
            fs::remove_file(self.path().join("ipam/pods").join(address)).expect("remove an address");
        }
    }

    /// Removes the sockets of shims that were killed, which stay, whatever the runtime. No shim may run.
    pub fn remove_forgotten_sockets(&self) {
        assert_eq!(host::pids_named("containerd-shim"), [] as [i32; 0]);
        for socket in self.new_files("/run/containerd/s") {
            fs::remove_file(socket).expect("remove a socket");
        }
    }

    /// The PID of containerd.
    pub fn pid(&self) -> i32 {
        self.daemon.as_ref().expect("containerd runs").pid()
    }

    /// The socket of the CRI.
    pub fn socket(&self) -> PathBuf {
        self.path().join("socket")
    }

    /// A directory that the test may use.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What containerd has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("containerd.log")).unwrap_or_default()
    }

    /// The link to a CNI plugin, which may be replaced.
    pub fn plugin(&self, name: &str) -> PathBuf {
        self.path().join("plugins").join(name)
    }

    /// A `stockade` command on containerd's containers.
    pub fn stockade(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new(built("release/stockade"));
        Outcome::of(command.args(["--root", RUNTIME_ROOT]).args(args), b"")
    }

    /// Fails the test if pods have left anything behind.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert_eq!(self.addresses(), [] as [String; 0], "addresses that pods had");
        self.before.assert_same_now();
    }

    /// What a directory has now and had not before there were pods.
    fn new_files(&self, directory: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(directory).expect("directory").flatten().map(|entry| entry.path());
        files.filter(|file| !self.before.files.contains(text(file))).collect()
    }

    /// The addresses that pods have.
    fn addresses(&self) -> Vec<String> {
        let files = fs::read_dir(self.path().join("ipam/pods")).into_iter().flatten().flatten();
        files
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with(|first: char| first.is_ascii_digit()))
            .collect()
    }

    /// Imports an image from its archive, which is used up.
    fn import(&self, archive: &Path) {
        self.ctr(&["images", "import", "--snapshotter", "overlayfs", text(archive)]);
        fs::remove_file(archive).expect("remove an archive");
    }

    /// Removes an image.
    pub fn remove_image(&self, name: &str) {
        self.ctr(&["images", "rm", "--sync", name]);
    }

    fn ctr(&self, args: &[&str]) {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(args);
        Outcome::of(&mut command, b"").success();
    }

    /// As a node's administrator does it: containerd's own settings, and then `stockade install`.
    fn write_config(&self) {
        let path = self.path().display();
        let file = self.path().join("etc/containerd/config.toml");
        fs::create_dir_all(file.parent().expect("a directory")).expect("directory");
        let config = format!(
            "version = 2\nroot = \"{path}/root\"\nstate = \"{path}/state\"\n\
             [grpc]\naddress = \"{path}/socket\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n\
             sandbox_image = \"{PAUSE}\"\n\
             stream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
             bin_dir = \"{path}/plugins\"\nconf_dir = \"{path}/net.d\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
             default_runtime_name = \"runc\"\nsnapshotter = \"overlayfs\"\n"
        );
        fs::write(&file, config).expect("write containerd's config");
        let binary = built("release/stockade");
        let mut command = Command::new(&binary);
        command.args(["install", "--containerd", "--prefix", text(self.path()), "--binary", text(&binary)]);
        Outcome::of(&mut command, b"").success();
        let other = format!("plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{BY_RUNCS_SHIM}");
        let root = Path::new(RUNTIME_ROOT).parent().expect("containerd's namespace is below it");
        let other = format!(
            "\n[{other}]\nruntime_type = \"io.containerd.runc.v2\"\nprivileged_without_host_devices = true\n\
             pod_annotations = [\"io.stockade.*\"]\n\
             [{other}.options]\nBinaryName = \"{}\"\nRoot = \"{}\"\n",
            binary.display(),
            root.display(),
        );
        let written = fs::read_to_string(&file).expect("containerd's config");
        let by_sandbox_api = if let Some(handler) = Self::sandbox_api() {
            let table = format!("plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{handler}");
            let shim = built("release/containerd-shim-stockade-v2");
            format!(
                "[{table}]\nruntime_type = \"{}\"\nsandboxer = \"shim\"\nprivileged_without_host_devices = true\n\
                 pod_annotations = [\"io.stockade.*\"]\n",
                shim.display()
            )
        } else {
            String::new()
        };
        fs::write(&file, written + &other + &by_sandbox_api).expect("write containerd's config");
    }

    fn write_network(&self) {
        for plugin in NETWORK {
            let link = self.plugin(plugin);
            fs::create_dir_all(link.parent().expect("a directory")).expect("directory");
            symlink(Path::new(PLUGINS).join(plugin), link).expect("link to a plugin");
        }
        let file = self.path().join("net.d/10-pods.conflist");
        fs::create_dir_all(file.parent().expect("a directory")).expect("directory");
        let config = json!({
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipMasq": true, "hairpinMode": true,
                    "ipam": {
                        "type": "host-local", "dataDir": self.path().join("ipam"),
                        "ranges": [[{ "subnet": "10.89.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
                { "type": "firewall" },
            ],
        });
        fs::write(file, config.to_string()).expect("write the network's config");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().filter(|line| !line.contains("level=info")).collect();
            eprintln!("containerd's log, without what is only information:\n{}", lines.join("\n"));
        }
        self.daemon = None;
        ip(&["link", "del", BRIDGE]);
    }
}

fn ip(args: &[&str]) {
    Outcome::of(Command::new("ip").args(args), b"").success();
}
