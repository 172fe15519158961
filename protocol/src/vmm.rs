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

    /// What the VMM of this build answers; `None` if this is not a hello.
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
    /// `cgroup.procs` of the sandbox's cgroup, open for writing; the VMM joins after KVM_CREATE_VM. /dev/null if the VMM is in its
    /// cgroup already.
    pub const CGROUP_PROCS: i32 = 10;
    /// /dev/kvm, open for reading and writing.
    pub const KVM: i32 = 11;
    /// Listening UNIX socket for framed [`super::FilesRequest`]s.
    pub const FILES_LISTENER: i32 = 12;
    /// A lock that reserves [`super::Config::user`] for as long as the VMM or its file server has this descriptor; not
    /// open if there is no such user.
    pub const USER_LOCK: i32 = 13;
    /// The state of a template, opened as [`super::Template`] says; not open without a template.
    pub const TEMPLATE_STATE: i32 = 14;
    /// The RAM of that template, opened like its state.
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
    /// Largest RAM that the guest can be given later, in MiB; until then, the VMM only reserves address space for it.
    pub most_memory_mib: u32,
    /// From version 2 on: user and group ID that the VMM takes on; `None` to keep the runtime's.
    pub user: Option<u32>,
    /// From version 2 on: what is done with a template.
    pub template: Template,
    /// From version 2 on: pages of the template to which a start writes, each once, in order: the number of the first one in the file
    /// with its RAM, and how many. It is advice.
    pub hot: Vec<(u32, u32)>,
}

/// What the VMM does with [`fd::TEMPLATE_STATE`] and [`fd::TEMPLATE_RAM`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Template {
    /// Nothing: the guest boots.
    #[default]
    None,
    /// The guest boots, and is saved to these files when its agent is ready; the VMM then exits with 0. Both files are
    /// empty and open for reading and writing.
    Save,
    /// The guest begins in the state that the files hold. Both files are open for reading. If they cannot be used, the
    /// VMM reports that, and the guest boots.
    Use,
}

/// What the VMM reports. Stages come in this order, each at most once; `Failed` or `Ended` is the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The VMM has reached this stage.
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
    /// From version 2 on: a device has stopped working. The machine runs on.
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
    /// Only in version 1: stop serving this directory, and drop every descriptor below it.
    RemoveShare {
        /// One path component.
        name: String,
    },
    /// Read the part of the guest's console that the VMM keeps.
    Console,
    /// Read figures for benchmarks and `stockade check`.
    Figures,
    /// Put a network device into a free slot. Its taps come with the request, as SCM_RIGHTS of the frame's first byte: one
    /// per pair of queues, opened with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR` and, where there are several,
    /// `IFF_MULTI_QUEUE`.
    AddNic(Nic),
    /// Put a block device into a free slot. Its file or host's block device comes with the request, as for AddNic.
    AddDisk(Disk),
    /// Remove a device that was added, and free its slot. The guest's driver must have been unbound before.
    RemoveDevice {
        /// As in [`Response::Slot`].
        slot: u8,
    },
    /// Read the CPU times of the VMM's threads and of its file server.
    Threads,
    /// Have the guest online memory, or give it back, until it has this much, but at least what it booted with.
    /// Answered with Done when it has; that may never happen, because a guest gives back only memory that it does not
    /// use. A later request replaces one that has no answer yet.
    SetMemory {
        /// All of the guest's RAM, in MiB.
        mib: u32,
    },
    /// Read how much memory the guest has in use.
    Memory,
    /// Make the machine have at least this many CPUs; all but the boot CPU wait until the guest's kernel starts them.
    AddVcpus {
        /// Number of CPUs, the boot CPU included; at most [`Config::vcpus`].
        count: u8,
    },
    /// Read the position of the boot CPU.
    Position,
    /// From version 2 on: list the devices that have failed.
    Failures,
}

/// A network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its hardware address.
    pub mac: [u8; 6],
    /// MTU in bytes, which virtio-net tells its driver.
    pub mtu: u16,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Whether the guest can only read it.
    pub readonly: bool,
    /// What the guest reads at /sys/block/NAME/serial: at most 20 bytes.
    pub serial: String,
}

/// Largest number of CPUs of a VM: the number for which the guest's kernel is built.
pub const MAX_VCPUS: u8 = 64;

/// Largest number of queue pairs of one [`Nic`].
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
    /// To AddNic and AddDisk: the device is in this slot and waits for its driver to be bound. The guest names it
    /// `virtio-mmio.SLOT` on its platform bus.
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

/// Largest number of descriptors with one [`FilesRequest`]; the kernel's limit is 253.
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

/// What a CPU of the guest is executing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuPosition {
    /// Address of its next instruction.
    pub instruction: u64,
    /// Whether interrupts are enabled.
    pub interrupts: bool,
}

/// CPU time of one thread of the VMM, or of all threads of the file server under the name `files`.
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
    /// Resident memory of the VMM that is not guest RAM, plus the memory that only the file server has, in KiB.
    pub overhead_kib: u64,
    /// Resident guest RAM, in KiB.
    pub guest_kib: u64,
}

/// Longest status packet, in bytes.
pub const STATUS_LIMIT: usize = 32 << 10;

/// Longest console excerpt in a status packet, in bytes.
pub const CONSOLE_EXCERPT: usize = 8 << 10;
