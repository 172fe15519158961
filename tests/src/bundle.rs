//! OCI bundles made of busybox, with a config.json that each test edits.

use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A bundle in a directory of its own, removed with the value.
pub struct Bundle {
    directory: TempDir,
    /// config.json as it will be written.
    pub config: Value,
}

/// Where bundles and what they mount lie.
pub const DIRECTORY: &str = "/tmp/bundles";

/// A temporary directory below [`DIRECTORY`], removed with the value.
pub fn directory() -> TempDir {
    fs::create_dir_all(DIRECTORY).expect("directory of bundles");
    tempfile::tempdir_in(DIRECTORY).expect("temporary directory")
}

/// The busybox applets that tests call by name.
const APPLETS: &[&str] = &[
    "awk", "cat", "chmod", "cut", "date", "dd", "df", "dmesg", "echo", "env", "false", "find", "grep",
    "head", "hostname", "id", "kill", "ln", "ls", "md5sum", "mkdir", "mknod", "mount", "mv", "printf", "ps",
    "pwd", "readlink", "rm", "sed", "seq", "sh", "sleep", "sort", "stat", "stty", "sync", "tail", "test",
    "touch", "tr", "true", "tty", "umount", "uname", "wc", "xargs", "yes",
];

impl Bundle {
    /// A bundle that runs `args`; the config is what runc's `spec` would write, less the terminal.
    pub fn busybox(args: &[&str]) -> Self {
        let directory = directory();
        make_rootfs(&directory.path().join("rootfs"));
        let bundle = Self { directory, config: default_config(args) };
        bundle.write();
        bundle
    }

    /// A bundle that runs a shell script.
    pub fn script(script: &str) -> Self {
        Self::busybox(&["/bin/sh", "-c", script])
    }

    /// Changes the config and writes it.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self.write();
        self
    }

    /// Replaces config.json by any text.
    pub fn raw_config(&self, text: &str) {
        fs::write(self.path().join("config.json"), text).expect("write config.json");
    }

    /// The bundle's directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The root file system's directory.
    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    fn write(&self) {
        self.raw_config(&serde_json::to_string_pretty(&self.config).expect("serialise config"));
    }
}

/// Gives a tree to the user and the group of this ID.
pub fn chown_all(path: &Path, id: u32) {
    lchown(path, Some(id), Some(id)).expect("chown");
    if path.symlink_metadata().expect("metadata").is_dir() {
        fs::read_dir(path).expect("directory").for_each(|entry| chown_all(&entry.expect("entry").path(), id));
    }
}

/// Fills `rootfs` with busybox and the few files that programs expect.
pub fn make_rootfs(rootfs: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"] {
        fs::create_dir_all(rootfs.join(directory)).expect("rootfs directory");
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("copy /bin/busybox (package busybox-static)");
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("applet");
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
        .expect("passwd");
    fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("group");
}

fn default_config(args: &[&str]) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "stockade",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "cgroup" }
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
