//! Bundles of Debian programs: the root file system that `tests/setup/debian` makes, with a layer of its own per bundle.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::cli::{Outcome, Stockade, text};

/// Longest that one workload may take before its test fails: programs start slowly under emulation in emulation.
pub const LIMIT: Duration = Duration::from_secs(600);

/// What Docker and podman give a container that asks for nothing.
const ENGINE_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// A bundle whose root is Debian, unmounted and removed with the value.
pub struct Workload {
    // Unmounted before its directory goes.
    _root: Overlay,
    bundle: Bundle,
}

impl Workload {
    /// One that runs `args` with what engines give a container that asks for nothing.
    pub fn new(args: &[&str]) -> Self {
        Self::of("workloads", args)
    }

    /// The same of another root file system that `tests/setup/debian` makes.
    fn of(image: &str, args: &[&str]) -> Self {
        let bundle = Bundle::busybox(args).edit(|config| {
            let process = &mut config["process"];
            process["noNewPrivileges"] = false.into();
            set_capabilities(process, &json!(ENGINE_CAPABILITIES));
            process["rlimits"] = json!([]);
        });
        // In the bundle's directory, so that it goes with it.
        let _root = Overlay::mount(&made(image), bundle.path());
        Self { _root, bundle }
    }

    /// One that runs a shell script.
    pub fn script(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    /// One with what `--privileged` gives: every capability, every device, cgroup and kernel files to write to.
    pub fn privileged(args: &[&str]) -> Self {
        Self::new(args).with_privileges()
    }

    /// The same of Debian 13 with podman and Docker.
    pub fn privileged_engines(args: &[&str]) -> Self {
        Self::of("engines", args).with_privileges()
    }

    fn with_privileges(self) -> Self {
        self.edit(|config| {
            set_capabilities(&mut config["process"], &all_capabilities());
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
            config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
            for mount in config["mounts"].as_array_mut().expect("mounts") {
                if let Some(options) = mount["options"].as_array_mut() {
                    options.retain(|option| option != "ro");
                }
            }
        })
    }

    /// Changes the config and writes it.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        self.bundle = self.bundle.edit(change);
        self
    }

    /// The bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Starts `run` of it, with an empty standard input and its output in pipes.
    pub fn start(&self, stockade: &Stockade, id: &str) -> Child {
        stockade
            .command(&["run", "--bundle", text(self.bundle.path()), id])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("stockade run")
    }

    /// Runs it to its end, which must be a success; the lines of its output.
    #[track_caller]
    pub fn lines(&self) -> Vec<String> {
        self.lines_by(&Stockade::new())
    }

    /// As [`lines`](Self::lines), by a stockade with a configuration of its own.
    #[track_caller]
    pub fn lines_by(&self, stockade: &Stockade) -> Vec<String> {
        let child = self.start(stockade, "workload");
        Outcome::wait_for(child, "run", LIMIT).success().stdout.lines().map(str::to_owned).collect()
    }
}

fn set_capabilities(process: &mut Value, names: &Value) {
    process["capabilities"] = json!({ "bounding": names, "effective": names, "permitted": names });
}

/// Every capability that stockade knows.
fn all_capabilities() -> Value {
    let features = Stockade::new().run(&["features"]).success().stdout;
    let features: Value = serde_json::from_str(&features).expect("features prints JSON");
    features["linux"]["capabilities"].clone()
}

/// The directory of the image of workloads.
pub(crate) fn image() -> PathBuf {
    made("workloads")
}

/// The directory of a root file system.
fn made(name: &str) -> PathBuf {
    let link = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join(name);
    link.canonicalize()
        .unwrap_or_else(|e| panic!("{}: {e}; run `tests/setup/debian {name}` first", link.display()))
}

/// A mount of overlayfs: what is written goes to a layer that is thrown away.
struct Overlay(PathBuf);

impl Overlay {
    /// Mounts it over `rootfs` in `directory`, with its layer beside it.
    fn mount(lower: &Path, directory: &Path) -> Self {
        let [upper, work] = ["upper", "work"].map(|name| directory.join(name));
        for layer in [&upper, &work] {
            fs::create_dir(layer).expect("directory of a layer");
        }
        let target = directory.join("rootfs");
        let layers =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        mount(Some("overlay"), &target, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
            .unwrap_or_else(|e| panic!("mount {layers}: {e}"));
        Self(target)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
