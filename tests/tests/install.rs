//! `install` and `uninstall`, with the engines that read what they write.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use stockade_tests::bundle::make_rootfs;
use stockade_tests::cli::{Outcome, Stockade, built, text};

const BUILDKIT: &str = "etc/systemd/system/docker.service.d/stockade.conf";

const FILES: [(&str, &str); 4] = [
    ("--podman", "etc/containers/containers.conf.d/stockade.conf"),
    ("--docker", "etc/docker/daemon.json"),
    ("--containerd", "etc/containerd/config.toml"),
    ("--crio", "etc/crio/crio.conf.d/stockade.conf"),
];

/// A directory that stands for the root of the file system.
struct Prefix {
    directory: tempfile::TempDir,
    stockade: Stockade,
}

impl Prefix {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("directory"), stockade: Stockade::new() }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn run(&self, args: &[&str]) -> Outcome {
        let mut all = args.to_vec();
        all.extend(["--prefix", text(self.directory.path())]);
        self.stockade.run(&all)
    }

    fn write(&self, file: &str, content: &str) {
        fs::create_dir_all(self.path(file).parent().expect("parent")).expect("directory");
        fs::write(self.path(file), content).expect("write");
    }
}

#[test]
fn the_difference_is_shown_made_once_and_taken_back() {
    let prefix = Prefix::new();
    let (stockade, shim) = (built("release/stockade"), built("release/containerd-shim-stockade-v2"));
    for (engine, file) in FILES {
        let diff = prefix.run(&["install", engine, "--dry-run"]).success().stdout;
        let named = if engine == "--containerd" { &shim } else { &stockade };
        assert!(diff.starts_with("--- /dev/null\n+++ ") && diff.contains(text(named)), "{diff}");
        assert!(!prefix.path(file).exists(), "--dry-run has written {file}");
        assert_eq!(prefix.run(&["install", engine]).success().stdout, diff);
        assert!(prefix.run(&["install", engine]).success().stdout.contains("nothing to change"));
        let back = prefix.run(&["uninstall", "--dry-run", engine]).success().stdout;
        assert!(back.contains("\n+++ /dev/null\n"), "{back}");
        assert!(prefix.path(file).exists(), "--dry-run has removed {file}");
        prefix.run(&["uninstall", engine]).success();
        assert!(!prefix.path(file).exists(), "{file} is left");
        assert!(prefix.run(&["uninstall", engine]).success().stdout.contains("nothing was installed"));
    }
    prefix.run(&["install"]).failure(1, &["--podman", "--docker"]);
}

#[test]
fn other_settings_stay_and_malformed_files_are_left_alone() {
    let prefix = Prefix::new();
    let (docker, containerd) = (FILES[1].1, FILES[2].1);
    let daemon = "{\"log-level\": \"warn\", \"runtimes\": {\"crun\": {\"path\": \"/usr/bin/crun\"}}}";
    prefix.write(docker, daemon);
    // One engine's file cannot be understood: the other's is not changed either.
    prefix.write(containerd, "version = 2\n[plugins\n");
    prefix.run(&["install", "--docker", "--containerd"]).failure(1, &["config.toml", "line 2"]);
    assert_eq!(fs::read_to_string(prefix.path(docker)).expect("read"), daemon);

    prefix.run(&["install", "--docker", "--binary", "/opt/stockade"]).success();
    let merged: Value =
        serde_json::from_str(&fs::read_to_string(prefix.path(docker)).expect("read")).expect("JSON");
    assert_eq!(merged["runtimes"]["stockade"]["path"], "/opt/stockade");
    assert_eq!(merged["runtimes"]["crun"]["path"], "/usr/bin/crun");
    assert_eq!(merged["log-level"], "warn");
    let drop_in = fs::read_to_string(prefix.path(BUILDKIT)).expect("read");
    assert_eq!(drop_in, "[Service]\nEnvironment=DOCKER_BUILDKIT_RUNC_COMMAND=/opt/stockade\n");
    prefix.run(&["uninstall", "--docker"]).success();
    assert_eq!(fs::read_to_string(prefix.path(docker)).expect("read"), daemon);
    assert!(!prefix.path(BUILDKIT).exists());
}

#[test]
fn containerd_reads_it_beside_what_it_had() {
    let prefix = Prefix::new();
    let file = FILES[2].1;
    let cni = "[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/usr/lib/cni\"\n";
    prefix.write(file, &format!("version = 2\n{cni}"));
    let dump = || {
        let mut dump = Command::new("containerd");
        dump.arg("--config").arg(prefix.path(file)).args(["config", "dump"]);
        Outcome::of(&mut dump, b"").success().stdout
    };
    // With its own shim, which is beside this binary, and by runc's, which is told where the binary is.
    prefix.run(&["install", "--containerd"]).success();
    let own = format!("runtime_type = \"{}\"", built("release/containerd-shim-stockade-v2").display());
    assert!(dump().contains(&own) && !dump().contains("BinaryName = \"/"), "{}", dump());
    let binary = built("release/stockade");
    prefix.run(&["install", "--containerd", "--runc-shim"]).success();
    assert!(dump().contains(&format!("BinaryName = \"{}\"", binary.display())), "{}", dump());
    prefix.run(&["install", "--podman", "--runc-shim"]).failure(1, &["--containerd"]);
    prefix.run(&["install", "--containerd", "--binary", "/opt/stockade"]).success();
    let dump = dump();
    for line in [
        "containerd.runtimes.runc]",
        "containerd.runtimes.stockade]",
        "containerd.runtimes.stockade.options]",
        "BinaryName = \"/opt/stockade\"",
        "Root = \"/run/containerd/stockade\"",
        "bin_dir = \"/usr/lib/cni\"",
    ] {
        assert!(dump.contains(line), "no {line} in {dump}");
    }
}

/// podman's own directory is another one, but only for this podman.
#[test]
fn podman_runs_the_runtime_by_its_name() {
    let prefix = Prefix::new();
    fs::create_dir(prefix.path("etc")).expect("directory");
    let copied = Command::new("cp").args(["-a", "/etc/containers", text(&prefix.path("etc"))]).status();
    assert!(copied.expect("cp").success());
    prefix.run(&["install", "--podman"]).success();
    let rootfs = stockade_tests::bundle::directory();
    make_rootfs(rootfs.path());
    let script = "mount --bind \"$1\" /etc/containers && exec podman --cgroup-manager cgroupfs --events-backend file \
                  --runtime stockade run --rm --cgroups=disabled --network none --rootfs \"$2\" uname -r";
    let mut podman = Command::new("unshare");
    podman.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    podman.args([text(&prefix.path("etc/containers")), text(rootfs.path())]);
    let release = Outcome::of(&mut podman, b"").success().stdout;
    assert!(release.trim_end().ends_with("-stockade"), "{release}");
}
