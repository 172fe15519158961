//! Host ↔ agent, over vsock.
//!
//! The guest makes one connection, [`READY_PORT`], and sends one [`Ready`] on it. All others come from the host
//! to [`AGENT_PORT`] and begin with a [`Hello`] that names what the connection is for:
//!
//! ```text
//!  Control   Request → Response, one at a time, as many as wanted
//!  Process   ProcessCommand →, ← ProcessEvent; closing it kills the process that it stands for
//!  Stream    after HelloReply: raw bytes of one stdio stream, ended by shutdown of the writing side
//!  Events    ← ContainerEvent, until the container is forgotten
//!  Forward   after HelloReply: raw bytes of a connection to a port of the guest
//!  Socket    HelloReply when a client has come, then raw bytes of its connection to a socket of the host
//!  Resolver  HelloReply when a query for the host's resolver has come, then raw bytes of its connection
//! ```
//!
//! The order for one process is: `Request::Create` or `Request::Exec`; then its Process and Stream connections; then
//! `Request::Start`. So no output can precede its stream.
//!
//! | version | spoken since |
//! |---|---|
//! | 1 | 0.1 |
//! | 2 | 0.2: Settings, Confine, Selinux, Resolver, Held, Plain, and the kinds Null and Closed of streams |
//!
//! All connections are made in version 1, but those on which something newer is asked: sandboxes of 0.1 go on working.

use serde::{Deserialize, Serialize};

use crate::container::{Container, Process, WindowSize};
use crate::network::NetworkChange;
use crate::settings::{Confinement, SelinuxPolicy, Settings};

pub mod call;

/// The newest version of these messages.
pub const VERSION: u16 = 2;

/// The oldest version that this build still speaks.
pub const OLDEST_VERSION: u16 = 1;

/// First field of [`Hello`] and [`Ready`].
pub const MAGIC: [u8; 4] = *b"STKD";

/// vsock port on the host (CID 2) to which the agent reports that it listens.
pub const READY_PORT: u32 = 1;

/// vsock port on which the agent listens. Below 1024: workloads without CAP_NET_BIND_SERVICE cannot take it.
pub const AGENT_PORT: u32 = 1;

/// virtio-fs tag of the tree of shared file systems.
pub const SHARE_TAG: &str = "stockade";

/// Where the guest has that tree.
pub const SHARES: &str = "/run/shares";

/// The agent's one message on the connection to [`READY_PORT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// Oldest protocol version that the agent speaks.
    pub oldest_version: u16,
    /// Newest protocol version that the agent speaks.
    pub version: u16,
    /// `uname -r` of the guest.
    pub kernel_release: String,
    /// Guest TSC at the agent's first instruction.
    pub entry_tsc: u64,
}

/// First message of every connection to [`AGENT_PORT`]; its layout is frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// The version in which the host will speak.
    pub version: u16,
    /// What the connection is for.
    pub purpose: Purpose,
}

impl Hello {
    /// A hello in the version that every agent understands.
    pub fn new(purpose: Purpose) -> Self {
        Self { magic: MAGIC, version: OLDEST_VERSION, purpose }
    }

    /// A hello in the current [`VERSION`].
    pub fn newest(purpose: Purpose) -> Self {
        Self { magic: MAGIC, version: VERSION, purpose }
    }
}

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Requests and responses.
    Control,
    /// Stands for one process: carries its signals and reports its end; closing it kills the process.
    Process(ProcessId),
    /// Carries one stdio stream of one process.
    Stream(ProcessId, Stream),
    /// Tells what happens to the container of this ID.
    Events(String),
    /// A TCP connection to this port of the guest's loopback interface. After HelloReply come its bytes, in both
    /// directions; each direction is ended by shutdown of its writing side.
    Forward(u16),
    /// Waits for the next client of this container that connects to its [`crate::container::MountSource::Socket`] of
    /// this number. HelloReply comes when there is a client, and then the bytes of its connection, in both directions,
    /// as in Forward. When two connections wait for a client of one socket, the older one is closed.
    Socket(String, u16),
    /// Since version 2. Waits for the next query of a container to the resolver that the host has at 127.0.0.11:53. The
    /// first such connection makes the guest listen there. HelloReply comes when there is a query, and then the bytes
    /// of its connection, in both directions, in the form of DNS over TCP. When two connections wait, the older one is
    /// closed.
    Resolver,
}

/// [`ProcessId::container`] of a process that runs in the guest itself, for debugging. No container's ID can be empty.
pub const GUEST: &str = "";

/// A process that the host knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// The container's ID, or [`GUEST`].
    pub container: String,
    /// `None` for the container's init, else the host's own name for an exec.
    pub exec: Option<String>,
}

/// One of a process's stdio streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// To the process's fd 0.
    Stdin,
    /// From the process's fd 1.
    Stdout,
    /// From the process's fd 2.
    Stderr,
    /// Both ways: the process's controlling terminal.
    Terminal,
    /// The entry of this index in [`Process::streams`]: the process's fd 3 + index.
    Extra(u16),
}

/// The agent's answer to [`Hello`]; its layout is frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloReply {
    /// The connection is in use as asked.
    Welcome,
    /// The agent closes the connection, for this reason.
    Refused(AgentError),
}

/// What the host asks on a Control connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Build a container up to "created": its init waits before execve.
    Create(Box<Container>),
    /// Let a created process execute its program. Answered when execve has succeeded or failed.
    Start(ProcessId),
    /// Send a signal to the container's init, or with `all` to every process of the container.
    Signal {
        /// The container's ID.
        container: String,
        /// Linux signal number; 0 only asks whether there is a process.
        signal: i32,
        /// Whether every process in the container's cgroup gets the signal.
        all: bool,
    },
    /// Read a container's state.
    State {
        /// The container's ID.
        container: String,
    },
    /// Kill what is left of a container and forget it. Answered when its mounts and cgroup are gone.
    Delete {
        /// The container's ID.
        container: String,
    },
    /// Make another process in a container; it waits before execve, as an init does.
    Exec(Box<Exec>),
    /// Freeze every process of a container. Answered when they are frozen.
    Pause {
        /// The container's ID.
        container: String,
    },
    /// Let the frozen processes of a container go on.
    Resume {
        /// The container's ID.
        container: String,
    },
    /// List a container's processes.
    Processes {
        /// The container's ID.
        container: String,
    },
    /// Read a container's cgroup, for statistics.
    CgroupFiles {
        /// The container's ID.
        container: String,
    },
    /// Change a container's limits: write these files of its cgroup, in order. If one write fails, the files before it
    /// get their former values back.
    Update {
        /// The container's ID.
        container: String,
        /// As in [`crate::container::Cgroup::values`].
        values: Vec<(String, String)>,
    },
    /// Change the guest's network.
    Network(Box<NetworkChange>),
    /// List the IDs of the containers.
    Containers,
    /// Use this many of the guest's CPUs, from the first one on. If one cannot be brought up, those before it are used.
    SetCpus {
        /// At least 1.
        count: u16,
    },
    /// Take over the node's settings; since version 2.
    Settings(Box<Settings>),
    /// Say what confines the process of this name, which is made next over the same connection; since version 2.
    Confine {
        /// The process, which does not exist yet.
        process: ProcessId,
        /// What confines it.
        confinement: Box<Confinement>,
    },
    /// Load an SELinux policy, before the first container; since version 2.
    Selinux(Box<SelinuxPolicy>),
}

/// Another process of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The new process: `exec` is `Some`, and its name is unique in that container. In [`GUEST`] the process runs
    /// beside the agent.
    pub id: ProcessId,
    /// The program and its properties.
    pub process: Process,
    /// Path of a cgroup below the container's, without a leading slash; empty for exactly the container's own. `None`
    /// for the container's own, or for the cgroup of its init if the container's own has handed its controllers down.
    pub cgroup: Option<String>,
    /// Whether a paused container is accepted: the process begins when the container is resumed.
    pub ignore_paused: bool,
}

/// The agent's answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To Create and Exec: the process waits for Start.
    Created {
        /// The process's PID in the guest's root pid namespace.
        guest_pid: u32,
        /// What could not be applied, one sentence each.
        warnings: Vec<String>,
    },
    /// To Start: the program runs.
    Started,
    /// To Signal: the signal is sent.
    Signalled,
    /// To State.
    State(ContainerState),
    /// To Delete.
    Deleted,
    /// The request failed; nothing was left half done.
    Error(AgentError),
    /// To Pause.
    Paused,
    /// To Resume.
    Resumed,
    /// To Processes: at most [`MAX_PROCESSES`].
    Processes(Vec<ProcessEntry>),
    /// To CgroupFiles: names and contents of the files that there are (`memory.current`, `cpu.stat` …).
    CgroupFiles(Vec<(String, String)>),
    /// To Update.
    Updated,
    /// To Network: all steps are taken.
    NetworkChanged,
    /// To Containers: at most [`MAX_CONTAINERS`].
    Containers(Vec<String>),
    /// To SetCpus.
    CpusSet,
    /// To Settings: what the guest's kernel does not take, one sentence each.
    SettingsTaken(Vec<String>),
    /// To Confine.
    Confined,
    /// To Selinux.
    SelinuxLoaded,
}

/// Largest number of containers in one guest.
pub const MAX_CONTAINERS: usize = 1024;

/// Largest number of processes that Processes lists.
pub const MAX_PROCESSES: usize = 1024;

/// One process of a container, as `ps` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEntry {
    /// The name by which the host knows it, if the host has made it.
    pub id: Option<ProcessId>,
    /// PID as the container sees it.
    pub pid: u32,
    /// PID of its parent; 0 if the parent is outside of the container's PID namespace.
    pub parent: u32,
    /// Real user ID.
    pub uid: u32,
    /// Name of its terminal (`pts/0`), if it has one.
    pub terminal: Option<String>,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// CPU time that it has used, in milliseconds.
    pub cpu_ms: u64,
    /// Its command line, or its name in brackets where it has none; at most 128 bytes.
    pub command: String,
}

/// A container's state, as the agent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Built, its init waits.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its init has ended.
    Stopped(ExitStatus),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// By exit(2) with this status.
    Exited(u8),
    /// By this signal.
    Signalled(u8),
}

impl ExitStatus {
    /// The status as shells and OCI callers read it: 128+n after signal n.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Signalled(signal) => 128u8.wrapping_add(signal),
        }
    }
}

/// Host → agent on a Process connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessCommand {
    /// Send this signal to the process.
    Signal(i32),
    /// The terminal's window changed.
    Resize(WindowSize),
    /// A directory of the host has changed of which this init's container has a copy.
    Changed,
    /// The caller's side is not a terminal: newlines come out of the guest's terminal as they are, without carriage
    /// returns. Since version 2.
    Plain,
}

/// Agent → host on a Process connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessEvent {
    /// The process has ended. All of its output has been written to its streams, which are at EOF, except those that
    /// are held.
    Ended(ExitStatus),
    /// A datagram that came to the container's [`NOTIFY_SOCKET`], of at most [`NOTIFY_LIMIT`] bytes.
    Notify(Vec<u8>),
    /// The process has ended, but other processes still have a stream of its output open: the stream goes on for them.
    /// Comes before Ended. Since version 2.
    Held {
        /// The stream.
        stream: Stream,
        /// Bytes that have been written to it so far.
        sent: u64,
    },
}

/// Where a container with [`Container::notify`] finds its sd_notify(3) socket.
pub const NOTIFY_SOCKET: &str = "/run/notify/notify.sock";

/// Longest datagram of sd_notify(3) that is passed on, in bytes.
pub const NOTIFY_LIMIT: usize = 4096;

/// Agent → host on an Events connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerEvent {
    /// The kernel has killed processes of the container because its memory limit was reached.
    OutOfMemory {
        /// Number of processes that were killed since the last such event.
        kills: u64,
    },
}

/// Why the agent did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct AgentError {
    /// What callers need to tell apart.
    pub kind: ErrorKind,
    /// One line for a person: what failed, on what, why.
    pub message: String,
}

/// The kinds of [`AgentError`] that callers treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The agent does not speak this protocol version.
    Version,
    /// No such container, process or stream.
    NotFound,
    /// The ID is taken.
    Exists,
    /// The container is not in the state that the request needs.
    WrongState,
    /// The container has no such process any more.
    NoProcess,
    /// `process.args[0]` is not there (exit status 127).
    ExecutableNotFound,
    /// `process.args[0]` may not be executed (exit status 126).
    NotExecutable,
    /// The specification cannot be applied.
    Spec,
    /// Anything else.
    Internal,
}
