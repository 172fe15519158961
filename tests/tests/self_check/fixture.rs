//! A bundle with the self-check, its configurations and what the mounts of the configurations need.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::LazyLock;

use serde_json::{Value, json};
use stockade_tests::bundle::{self, Bundle};
use tempfile::TempDir;

/// The self-check in the container.
pub const PROGRAM: &str = "/self-check";

static PROGRAM_COPY: LazyLock<TempDir> = LazyLock::new(|| {
    let directory = bundle::directory();
    fs::copy(env!("CARGO_BIN_EXE_self-check"), directory.path().join("self-check"))
        .expect("copy the self-check");
    directory
});

/// Directories of the bundle that are mounted: each says so in its file `.source`.
pub const DIRECTORIES: [&str; 3] = ["sources/one", "sources/two", "sources/three"];

/// Files of the bundle that are mounted: each contains its path.
pub const FILES: [&str; 2] = ["sources/first.txt", "sources/second.txt"];

/// A bundle to check.
pub struct Checked {
    /// It lives as long as the container.
    pub bundle: Bundle,
}

impl Checked {
    /// A bundle with this config.json, and with these files in its root file system.
    pub fn new(config: &Value, files: &[(&str, Value)]) -> Self {
        let bundle = Bundle::busybox(&[]).edit(|written| *written = config.clone());
        let rootfs = bundle.rootfs();
        // Copied once: it is large, with all its debug information.
        fs::hard_link(PROGRAM_COPY.path().join("self-check"), rootfs.join(&PROGRAM[1..]))
            .expect("self-check");
        for directory in DIRECTORIES {
            let directory = (bundle.path().join(directory), directory);
            fs::create_dir_all(&directory.0).expect("source");
            fs::write(directory.0.join(".source"), directory.1).expect("source");
        }
        for file in FILES {
            fs::write(bundle.path().join(file), file).expect("source");
        }
        fs::create_dir_all(rootfs.join("masked")).expect("directory");
        fs::write(rootfs.join("masked/file"), "secret").expect("file");
        fs::create_dir_all(rootfs.join("writable")).expect("directory");
        fs::create_dir_all(rootfs.join("linked")).expect("directory");
        symlink("/linked", rootfs.join("link")).expect("link");
        for (name, config) in files {
            let file = rootfs.join(name);
            fs::create_dir_all(file.parent().expect("directory")).expect("directory");
            fs::write(file, format!("{config:#}")).expect("config");
        }
        Self { bundle }
    }
}

/// What every generated configuration has: a process that is the self-check, and mounts through which it sees.
pub fn base() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "process": {
            "args": [PROGRAM, "--list", "/config.json"],
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
        },
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
        ],
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "network" }] },
    })
}

/// Mappings of every ID there is: from this one of the host on they count up from 0, and those before it come last.
pub fn mappings(shift: u32) -> Value {
    let rest = u32::MAX - shift;
    let mut list = vec![json!({ "containerID": 0, "hostID": shift, "size": rest })];
    if shift > 0 {
        list.push(json!({ "containerID": rest, "hostID": 0, "size": shift }));
    }
    list.into()
}

/// Sets what a path like `process.user.uid` names, making what it leads through.
pub fn set(config: &mut Value, path: &str, value: Value) {
    let mut place = config;
    for name in path.split('.') {
        place = &mut place[name];
    }
    *place = value;
}
