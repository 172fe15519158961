//! What the agent needs to know of a container: config.json, validated and resolved by the runtime.
//!
//! Kernel constants (mount flags, resource numbers, capability bits) are sent as numbers: they are Linux's ABI,
//! and so the agent parses no text that the runtime has parsed already.

use serde::{Deserialize, Serialize};

use crate::agent::WindowSize;

/// A container as the agent builds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Its ID: unique in the guest.
    pub id: String,
    /// Its root file system.
    pub rootfs: Rootfs,
    /// Its mounts, in the order of config.json.
    pub mounts: Vec<Mount>,
    /// Its init.
    pub process: Process,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// Hostname to set in a new UTS namespace.
    pub hostname: Option<String>,
    /// NIS domain name to set in a new UTS namespace.
    pub domainname: Option<String>,
    /// Device nodes to make besides the default ones.
    pub devices: Vec<Device>,
    /// Its cgroup below the guest's cgroup root.
    pub cgroup: Cgroup,
    /// `linux.sysctl`.
    pub sysctl: Vec<(String, String)>,
    /// Paths to hide.
    pub masked_paths: Vec<String>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<String>,
}

/// `root` and `linux.rootfsPropagation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Path below the share's root, such as `ID/rootfs`.
    pub share: String,
    /// The container sees its root read-only.
    pub readonly: bool,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`, with or without `MS_REC`; 0 for the default.
    pub propagation: u64,
}

/// One entry of `mounts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub destination: String,
    /// What is mounted.
    pub source: MountSource,
    /// `MS_*` flags to set.
    pub flags: u64,
    /// `MS_*` propagation changes to make after mounting, in order.
    pub propagation: Vec<u64>,
    /// File-system options, comma-separated (`size=65536k,mode=1777`).
    pub data: String,
}

/// What a [`Mount`] mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A folder or single file of the host, at this path below the share's root.
    Share(String),
    /// A file system that the guest's kernel makes.
    FileSystem {
        /// `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`, `cgroup2` …
        fstype: String,
        /// First argument of mount(2).
        source: String,
    },
}

/// `process`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working folder: absolute.
    pub cwd: String,
    /// Credentials.
    pub user: User,
    /// Capability sets; `None` leaves what execve gives that user.
    pub capabilities: Option<Capabilities>,
    /// `RLIMIT_*`.
    pub rlimits: Vec<Rlimit>,
    /// Sets PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// `/proc/self/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// `Some` gives it a pseudo-terminal of this size as controlling terminal and fds 0–2; `None` three pipes.
    pub terminal: Option<WindowSize>,
}

/// `process.user`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// File mode creation mask; `None` is 0o022.
    pub umask: Option<u32>,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
}

/// Capability sets, bit n for capability number n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Bounding set.
    pub bounding: u64,
    /// Effective set.
    pub effective: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Ambient set.
    pub ambient: u64,
}

/// One resource limit, as in prlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// `linux.namespaces`. The network namespace is the guest's own: it stands for the pod's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Process IDs.
    pub pid: Namespace,
    /// Mounts.
    pub mount: Namespace,
    /// Hostname.
    pub uts: Namespace,
    /// System V IPC and POSIX message queues.
    pub ipc: Namespace,
    /// Cgroup root.
    pub cgroup: Namespace,
}

/// Where one namespace of a container comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// Absent from config.json: the guest's own.
    #[default]
    Guest,
    /// A new one.
    New,
    /// That of another container in this guest.
    Container(String),
}

/// One entry of `linux.devices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path in the container.
    pub path: String,
    /// Kind of node.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Kind of device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// The container's cgroup (v2) in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Path below the guest's cgroup root, without a leading slash.
    pub path: String,
    /// Files to write, in order: (`memory.max`, `1048576`) …
    pub values: Vec<(String, String)>,
    /// Device rules, last match wins; empty allows everything.
    pub devices: Vec<DeviceRule>,
}

/// One entry of `linux.resources.devices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// `None` is every kind.
    pub kind: Option<DeviceKind>,
    /// `None` is every major number.
    pub major: Option<u32>,
    /// `None` is every minor number.
    pub minor: Option<u32>,
    /// Read.
    pub read: bool,
    /// Write.
    pub write: bool,
    /// mknod(2).
    pub mknod: bool,
}
