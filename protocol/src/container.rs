//! What the agent needs to know of a container: config.json, validated and resolved by the runtime.
//!
//! Kernel constants (mount flags, resource numbers, capability bits) are sent as numbers: they are Linux's ABI,
//! and so the agent parses no text that the runtime has parsed already.

use serde::{Deserialize, Serialize};

mod devices;

pub use self::devices::{
    DEFAULT_DEVICES, DEVICE_LINKS, Device, DeviceKind, DeviceRule, PTMX, is_shared_dev, share_covers_dev,
};

/// A container as the agent builds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// The container's ID: unique in the guest.
    pub id: String,
    /// Its root file system.
    pub rootfs: Rootfs,
    /// Its mounts, in the order of config.json.
    pub mounts: Vec<Mount>,
    /// Its init.
    pub process: Process,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// The IDs of its user namespace; `None` where that is the guest's.
    pub id_mappings: Option<IdMappings>,
    /// Offsets of the clocks of a new time namespace.
    pub time_offsets: Vec<TimeOffset>,
    /// Hostname to set in a new UTS namespace.
    pub hostname: Option<String>,
    /// NIS domain name to set in a new UTS namespace.
    pub domainname: Option<String>,
    /// Device nodes to make besides the default ones.
    pub devices: Vec<Device>,
    /// Its cgroup below the guest's cgroup root.
    pub cgroup: Cgroup,
    /// The guest's ID of the user that the cgroup is given to, so that the container can divide it.
    pub cgroup_owner: Option<u32>,
    /// `linux.sysctl`.
    pub sysctl: Vec<(String, String)>,
    /// Paths to hide.
    pub masked_paths: Vec<String>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<String>,
    /// Seccomp filters of all its processes, in the order in which they are loaded.
    pub seccomp: Vec<SeccompFilter>,
    /// `hooks.startContainer`: run in the container after `start` and before the program.
    pub start_hooks: Vec<Hook>,
    /// Whether it gets an sd_notify(3) socket at [`crate::agent::NOTIFY_SOCKET`], and its init's environment names it.
    pub notify: bool,
    /// `linux.personality` as personality(2) takes it, for all its processes.
    pub personality: Option<u32>,
    /// `linux.memoryPolicy`, for all its processes.
    pub memory_policy: Option<MemoryPolicy>,
}

/// A memory policy as set_mempolicy(2) takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// `MPOL_*` with `MPOL_F_*`.
    pub mode: u32,
    /// Memory nodes: node n is bit n % 64 of word n / 64.
    pub nodes: Vec<u64>,
}

/// A seccomp filter, compiled for the guest's architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompFilter {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// An array of `struct sock_filter`, 8 bytes each.
    pub program: Vec<u8>,
}

/// One entry of `hooks.startContainer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Program: an absolute path in the container.
    pub path: String,
    /// Its arguments, the first being its name; empty for the path alone.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// Seconds after which the hook is killed and counts as failed.
    pub timeout_s: Option<u32>,
    /// The container's state as JSON, for its standard input.
    pub state: String,
}

/// `root` and `linux.rootfsPropagation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Path below the share's root, such as `ID/rootfs`.
    pub share: String,
    /// Whether the container's root is read-only.
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
    /// File-system options, comma-separated (`size=65536k`); for a share, [`crate::share_options::ShareOptions`].
    pub data: String,
    /// `tmpcopyup`: what the image has at the destination is copied into the new file system.
    pub copy_up: bool,
}

/// What a [`Mount`] mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A directory or single file of the host, at this path below the share's root.
    Share(String),
    /// A file system that the guest's kernel makes.
    FileSystem {
        /// `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`, `cgroup2` …
        fstype: String,
        /// First argument of mount(2).
        source: String,
    },
    /// Nothing new: the mount that is at the destination already gets other flags and options.
    Remount,
    /// Not a mount, but a symbolic link to this path.
    Link(String),
    /// As Share, but the container gets a copy of the directory, which follows it, so that inotify tells of changes
    /// ([`crate::agent::ProcessCommand::Changed`]); or, if that fails, the directory itself. A symbolic link `..data` in
    /// the directory leads to one of its directories; replacing the link replaces all of the content.
    Copy(String),
    /// The file system on a disk of the VM.
    Disk {
        /// As in [`crate::vmm::Response::Slot`].
        slot: u8,
        /// As in FileSystem.
        fstype: String,
    },
    /// A listening stream socket of the agent; the host gets its connections ([`crate::agent::Purpose::Socket`]).
    Socket {
        /// The socket's number: unique in this container.
        number: u16,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// The ext4 file system on a disk of the VM, which is empty and lasts as long as the container. On `/`, what the container
    /// writes goes there, and the root file system stays as it is; elsewhere it has mode and owner of what it covers. Since
    /// version 2 of the agent's messages.
    Scratch {
        /// As in [`crate::vmm::Response::Slot`].
        slot: u8,
    },
}

/// `process`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory: absolute.
    pub cwd: String,
    /// Credentials.
    pub user: User,
    /// Capability sets; `None` leaves the sets that execve(2) gives that user.
    pub capabilities: Option<Capabilities>,
    /// `RLIMIT_*`.
    pub rlimits: Vec<Rlimit>,
    /// Whether PR_SET_NO_NEW_PRIVS is set.
    pub no_new_privileges: bool,
    /// `/proc/self/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// `Some` gives it a pseudo-terminal of this size as controlling terminal and fds 0–2; `None` three pipes.
    pub terminal: Option<WindowSize>,
    /// Descriptors from 3 on.
    pub streams: Vec<StreamKind>,
    /// Its share of CPU and disk.
    pub scheduling: Scheduling,
}

/// `process.scheduler`, `process.ioPriority` and `process.execCPUAffinity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// As in sched_setattr(2); `None` leaves the guest's default.
    pub scheduler: Option<Scheduler>,
    /// As ioprio_set(2) takes it: class << 13 | level.
    pub io_priority: Option<u16>,
    /// CPUs on which an exec begins: CPU n is bit n % 64 of word n / 64. Empty for every CPU.
    pub initial_cpus: Vec<u64>,
    /// CPUs on which an exec's program runs, likewise.
    pub final_cpus: Vec<u64>,
}

/// `struct sched_attr` of sched_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19.
    pub nice: i32,
    /// Priority for the real-time policies, 1 to 99.
    pub priority: u32,
    /// For SCHED_DEADLINE: CPU time in every period, in nanoseconds.
    pub runtime_ns: u64,
    /// For SCHED_DEADLINE: the time from the start of a period in which the runtime is needed, in nanoseconds.
    pub deadline_ns: u64,
    /// For SCHED_DEADLINE: the period, in nanoseconds.
    pub period_ns: u64,
}

/// A descriptor of the process beyond the standard ones; the host has its other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamKind {
    /// A pipe that the process reads.
    Input,
    /// A pipe that the process writes.
    Output,
    /// A stream socket.
    Socket,
    /// Not a stream, but the guest's null device. Since version 2 of the agent's messages.
    Null,
    /// Not open: the process has no descriptor of this number. Since version 2 of the agent's messages.
    Closed,
}

impl StreamKind {
    /// Whether the host makes a connection for it.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Input | Self::Output | Self::Socket)
    }
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
    /// User and group IDs, and the objects that capabilities apply to.
    pub user: Namespace,
    /// The monotonic and the boot-time clock.
    pub time: Namespace,
}

/// Where one namespace of a container comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// Absent from config.json: the guest's own.
    #[default]
    Guest,
    /// A new one.
    New,
    /// The namespace of another container in this guest, which has this ID.
    Container(String),
}

/// `linux.uidMappings` and `linux.gidMappings`; no two entries of a list overlap, and 0 is mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMappings {
    /// User IDs.
    pub users: Vec<IdMapping>,
    /// Group IDs.
    pub groups: Vec<IdMapping>,
}

/// A range of IDs of a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// The first ID of the range in the namespace.
    pub inside: u32,
    /// The first ID of the range in the guest.
    pub outside: u32,
    /// The number of IDs.
    pub size: u32,
}

impl IdMappings {
    /// The guest's ID of a user of the namespace.
    pub fn user(&self, inside: u32) -> Option<u32> {
        outside(&self.users, inside)
    }

    /// The guest's ID of a group of the namespace.
    pub fn group(&self, inside: u32) -> Option<u32> {
        outside(&self.groups, inside)
    }
}

fn outside(mappings: &[IdMapping], inside: u32) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let distance = inside.checked_sub(mapping.inside).filter(|distance| *distance < mapping.size)?;
        mapping.outside.checked_add(distance)
    })
}

/// One entry of `linux.timeOffsets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffset {
    /// `CLOCK_*` number.
    pub clock: i32,
    /// Seconds, which may be negative.
    pub seconds: i64,
    /// Nanoseconds to add to them, less than a second.
    pub nanoseconds: u32,
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

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}
