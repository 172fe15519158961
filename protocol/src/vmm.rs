//! Runtime ↔ VMM.
//!
//! The runtime starts `stockade-vmm` with a fixed set of descriptors ([`fd`]); the first carries a framed [`Hello`] and a
//! framed [`Config`]. The VMM reports on the status socket (SOCK_SEQPACKET, one postcard [`Status`] per packet, no
//! length) and answers framed [`Request`]s on connections to its control socket. Its file server, a process that it forks,
//! answers framed [`FilesRequest`]s on connections to the `files` socket.
//!
//! A connection to either socket begins with a framed [`Hello`], which the runtime sends together with its first request. The
//! VMM sends its [`HelloReply`] together with its first answer, or alone before it closes the connection.
//!
//! # Versions
//!
//! | version | spoken since | what is new |
//! |---|---|---|
//! | 1 | 0.1 | no Hello, no file server: AddShare and RemoveShare tell the VMM what is mounted in its own namespace |
//! | 2 | 0.2 | Hello, the file server and its requests, Failures, [`Status::DeviceFailed`], [`Config::user`], templates |
//!
//! The runtime chooses the version, by what it knows of the VMM that it has started: a VMM that its guest has taken over
//! cannot make it speak an older one.
//!
//! The other end of the status socket is also the VMM's lease of life: when the last copy of it is closed (the
//! runtime's until `create` is done, the sandbox relay's afterwards), the VMM exits.

use serde::{Deserialize, Serialize};

pub use crate::agent::MAGIC;

pub mod call;

/// The newest version of these messages, and the only one that this build's VMM speaks.
pub const VERSION: u16 = 2;

/// The oldest version that this build's runtime still speaks.
pub const OLDEST_VERSION: u16 = 1;

/// First message on the `config` descriptor and of every connection to the VMM, from version 2 on; its layout is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// The version in which the runtime speaks.
    pub version: u16,
}

impl Hello {
    /// A hello in this version.
    pub fn new(version: u16) -> Self {
        Self { magic: MAGIC, version }
    }

    /// What the VMM of this build answers; `None` to what is no hello at all.
    pub fn reply(self) -> Option<HelloReply> {
        (self.magic == MAGIC).then_some(match self.version {
            VERSION => HelloReply::Welcome,
            _ => HelloReply::Refused { oldest: VERSION, newest: VERSION },
        })
    }
}

/// The VMM's answer to [`Hello`]; its layout is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloReply {
    /// Requests are answered.
    Welcome,
    /// The VMM closes the connection: it speaks these versions.
    Refused {
        /// The oldest of them.
        oldest: u16,
        /// The newest of them.
        newest: u16,
    },
}

/// The descriptors that the VMM inherits. Numbers are fixed: the runtime dups to them before execve.
pub mod fd {
    /// One framed [`super::Hello`], one framed [`super::Config`], then EOF.
    pub const CONFIG: i32 = 3;
    /// The guest kernel, an uncompressed ELF, open for reading.
    pub const KERNEL: i32 = 4;
    /// The initramfs, open for reading.
    pub const INITRAMFS: i32 = 5;
    /// SOCK_SEQPACKET end on which the VMM writes [`super::Status`].
    pub const STATUS: i32 = 6;
    /// SOCK_STREAM end that gets the bytes of the guest's connection to [`crate::agent::READY_PORT`].
    pub const READY: i32 = 7;
    /// Listening UNIX socket; each connection is bridged to [`crate::agent::AGENT_PORT`] in the guest.
    pub const AGENT_LISTENER: i32 = 8;
    /// Listening UNIX socket for framed [`super::Request`]s.
    pub const CONTROL_LISTENER: i32 = 9;
    /// `cgroup.procs` of the sandbox's cgroup, open for writing, where the VMM joins it after KVM_CREATE_VM; /dev/null where it is
    /// in its cgroup already.
    pub const CGROUP_PROCS: i32 = 10;
    /// /dev/kvm, open for reading and writing.
    pub const KVM: i32 = 11;
    /// Listening UNIX socket for framed [`super::FilesRequest`]s.
    pub const FILES_LISTENER: i32 = 12;
    /// A lock that reserves [`super::Config::user`] for as long as the VMM or its file server has this descriptor; nothing
    /// where there is no such user.
    pub const USER_LOCK: i32 = 13;
    /// The state of a template, open for what [`super::Template`] says; nothing where there is none.
    pub const TEMPLATE_STATE: i32 = 14;
    /// The RAM of that template, as its state.
    pub const TEMPLATE_RAM: i32 = 15;
}

/// How to make the microVM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Guest RAM, in MiB.
    pub memory_mib: u32,
    /// CPUs that the guest can have: one of them boots.
    pub vcpus: u8,
    /// Guest context ID of the vsock device; at least 3.
    pub cid: u32,
    /// Appended to the VMM's own kernel command line.
    pub kernel_parameters: String,
    /// The most RAM that the guest can be given later, in MiB; address space until then.
    pub most_memory_mib: u32,
    /// From version 2 on: user and group ID that the VMM takes on; `None` to keep the runtime's.
    pub user: Option<u32>,
    /// From version 2 on: what is done with a template.
    pub template: Template,
}

/// What the VMM does with [`fd::TEMPLATE_STATE`] and [`fd::TEMPLATE_RAM`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Template {
    /// Nothing: the guest boots.
    #[default]
    None,
    /// The guest boots, and is written there when its agent is ready; the VMM exits with 0 then. Both are open for reading and
    /// writing, and empty.
    Save,
    /// The guest begins as it is there. Both are open for reading. What cannot be used is reported, and the guest boots.
    Use,
}

/// What the VMM reports. Stages come in this order, each at most once; `Failed` or `Ended` is the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The VMM has reached a stage.
    Reached(Stage),
    /// The VMM gives up and exits.
    Failed {
        /// The last stage reached before.
        after: Stage,
        /// One line: what failed, why, what to do.
        reason: String,
        /// The last lines of the guest's console, possibly none.
        console: String,
    },
    /// The guest shut down or reset its machine; the VMM exits.
    Ended {
        /// One line.
        reason: String,
        /// The last lines of the guest's console, possibly none.
        console: String,
    },
    /// From version 2 on: a device does no more work. The machine runs on.
    DeviceFailed {
        /// Its name.
        device: String,
        /// One line.
        cause: String,
    },
    /// From version 2 on: the template cannot be used, and the guest boots instead.
    TemplateRefused {
        /// One line.
        reason: String,
    },
    /// From version 2 on: the guest has been written to the template's files, and the VMM exits.
    Saved,
}

/// How far the VMM has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// The process runs and has read its configuration.
    Started,
    /// It has entered an empty root, and its file server has begun.
    Isolated,
    /// Guest memory, kernel and devices are in place.
    Loaded,
    /// The vCPUs run.
    Running,
    /// The guest has configured its first virtio device.
    DriverReady,
    /// The agent has connected to [`crate::agent::READY_PORT`].
    AgentConnected,
}

impl Stage {
    /// The stage in words, for "the guest got as far as …".
    pub fn describe(self) -> &'static str {
        match self {
            Self::Started => "the VMM had started",
            Self::Isolated => "the VMM had entered its own namespaces",
            Self::Loaded => "the guest kernel was in memory",
            Self::Running => "the virtual CPU was running",
            Self::DriverReady => "the guest kernel had found its devices",
            Self::AgentConnected => "the agent had connected",
        }
    }
}

/// What the runtime asks on a control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Only in version 1: serve `/shares/NAME` of the VMM's mount namespace as `/NAME` of the guest's share.
    AddShare {
        /// One path component.
        name: String,
    },
    /// Only in version 1: stop serving it and drop every descriptor below it.
    RemoveShare {
        /// One path component.
        name: String,
    },
    /// The guest's console, as far as it is kept.
    Console,
    /// Figures for benchmarks and `stockade check`.
    Figures,
    /// Put a network device into a free slot. Its taps come with the request, as SCM_RIGHTS of the frame's first byte: one
    /// per pair of queues, opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR` and, where there are several,
    /// `IFF_MULTI_QUEUE`.
    AddNic(Nic),
    /// Put a block device into a free slot. Its file or host's block device comes with the request, as for AddNic.
    AddDisk(Disk),
    /// Take a device that was added away again and free its slot. The guest's driver is to have let go of it before.
    RemoveDevice {
        /// As in [`Response::Slot`].
        slot: u8,
    },
    /// The CPU time of the VMM's threads and of its file server.
    Threads,
    /// Have the guest take memory into use, or give it back, until it has this much, or all that it has booted with. Answered
    /// with Done when it has, which may be never: a guest gives back what it does not use. A later request takes the place
    /// of one without an answer.
    SetMemory {
        /// All of the guest's RAM, in MiB.
        mib: u32,
    },
    /// How much memory the guest has.
    Memory,
    /// Have at least this many CPUs; those above the one that boots wait until the guest's kernel starts them. At most
    /// [`Config::vcpus`].
    AddVcpus {
        /// With the one that boots.
        count: u8,
    },
    /// Where the CPU is that boots.
    Position,
    /// From version 2 on: which devices have failed.
    Failures,
}

/// A network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Largest packet that it takes, in bytes, as virtio-net tells its driver.
    pub mtu: u16,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The guest cannot write to it.
    pub readonly: bool,
    /// What the guest reads at /sys/block/NAME/serial: at most 20 bytes.
    pub serial: String,
}

/// Most CPUs of a VM: what the guest's kernel is built for.
pub const MAX_VCPUS: u8 = 64;

/// Most pairs of queues of one [`Nic`].
pub const MAX_QUEUE_PAIRS: usize = 8;

/// The VMM's answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// It is done.
    Done,
    /// To Console.
    Console(Vec<u8>),
    /// To Figures.
    Figures(Figures),
    /// It failed: one line.
    Error(String),
    /// To AddNic and AddDisk: the device is in this slot, for the guest `virtio-mmio.SLOT` on its platform bus, and waits
    /// for its driver to be bound.
    Slot(u8),
    /// To Threads.
    Threads(Vec<ThreadTime>),
    /// To Memory: all of the guest's RAM, in MiB.
    Memory {
        /// What the guest has in use.
        mib: u32,
    },
    /// To Position.
    Position(CpuPosition),
    /// To Failures.
    Failures(Vec<DeviceFailure>),
}

/// The last failure of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFailure {
    /// Its name.
    pub device: String,
    /// One line.
    pub cause: String,
    /// How often it has failed.
    pub count: u32,
}

/// Most descriptors that come with one [`FilesRequest`]; the kernel's limit is 253.
pub const MAX_TREES: usize = 250;

/// What the runtime asks of the file server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilesRequest {
    /// Add an empty share, as a directory of the guest's file system.
    AddShare {
        /// One path component.
        name: String,
    },
    /// Show trees in a share. They come with the request, as SCM_RIGHTS of the frame's first byte: as many O_PATH descriptors
    /// as there are names, of cloned mounts. A name that is taken keeps its tree.
    AddTrees {
        /// The share.
        share: String,
        /// One path component each; at most [`MAX_TREES`].
        names: Vec<String>,
    },
    /// Remove a share and close all that is open below it.
    RemoveShare {
        /// One path component.
        name: String,
    },
}

/// The file server's answer to a [`FilesRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilesResponse {
    /// It is done.
    Done,
    /// It failed: one line.
    Error(String),
}

/// Where a CPU of the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuPosition {
    /// Address of its next instruction.
    pub instruction: u64,
    /// It takes interrupts.
    pub interrupts: bool,
}

/// What one thread of the VMM has used, or all of the file server's as `files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadTime {
    /// Its name, of at most 15 bytes.
    pub name: String,
    /// CPU time, in milliseconds; a virtual CPU's includes the guest's.
    pub cpu_ms: u64,
}

/// Figures of a running VMM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Host TSC when the VMM's main function began.
    pub entry_tsc: u64,
    /// Host TSC just before the first KVM_RUN.
    pub run_tsc: u64,
    /// What the guest's TSC reads minus what the host's reads (wrapping).
    pub tsc_offset: u64,
    /// Resident memory that is not guest RAM, and what only the file server has, in KiB.
    pub overhead_kib: u64,
    /// Resident guest RAM, in KiB.
    pub guest_kib: u64,
}

/// Longest status packet, in bytes.
pub const STATUS_LIMIT: usize = 32 << 10;

/// Longest console excerpt in a status packet, in bytes.
pub const CONSOLE_EXCERPT: usize = 8 << 10;
