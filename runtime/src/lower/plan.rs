//! The plan of a container: all of its config.json, checked and translated. Nothing changes a plan.
//!
//! The agent's [`Container`] is made from it in one place, [`ContainerPlan::container`], which takes all that is known only
//! when the relay, the hooks and the VM's disks are there.

use stockade_protocol::container::WindowSize;
use stockade_protocol::container::{
    self, Cgroup, Container, Device, DeviceKind, DeviceRule, IdMappings, MemoryPolicy, Mount, MountSource,
    Namespaces, Process, Rootfs, SeccompFilter, StreamKind, TimeOffset, is_shared_dev,
};

use super::security_labels::{HostLabel, Labels};
use super::{HostCgroup, UserNamespace, seccomp};
use crate::network::NetworkNamespace;
use crate::network::user_mode::UserNetwork;
use crate::oci::hooks::Hooks;
use crate::vm::Tree;
use crate::vm::sizing::{Demand, Pod};

/// A container, ready to be created.
#[derive(Debug)]
pub struct ContainerPlan {
    /// What the agent builds.
    pub guest: GuestPlan,
    /// Trees of the host that the guest needs: the rootfs first, then the mounts' sources.
    pub trees: Vec<Tree>,
    /// The directory in the VM's share for the volumes of the pod.
    pub volumes: Option<String>,
    /// The names, in that directory, of the volumes that the container writes to.
    pub written: Vec<String>,
    /// `linux.seccomp`, which is compiled while the VM boots.
    pub seccomp: Option<seccomp::Profile>,
    /// `hooks`.
    pub hooks: Hooks,
    /// The plan of the host's cgroup.
    pub cgroup: HostCgroup,
    /// The network namespace of the relay.
    pub network: NetworkNamespace,
    /// User-mode networking, if it is asked for.
    pub user_network: Option<UserNetwork>,
    /// The user namespace of the relay, if it is not the caller's.
    pub user: Option<UserNamespace>,
    /// What its limits ask of the VM.
    pub demand: Demand,
    /// What security modules apply to its init.
    pub labels: Option<Labels>,
    /// `linux.mountLabel`, where the guest applies it.
    pub mount_label: Option<String>,
    /// `process.selinuxLabel`, for the processes that stand for the container on a host with SELinux.
    pub host_label: Option<HostLabel>,
    /// What annotations say that its whole pod needs.
    pub pod: Pod,
    /// One sentence for each thing that config.json asks for but does not get.
    pub warnings: Vec<String>,
}

/// What the agent is told about a container, as far as config.json and the caller determine it. Unless something else
/// is said, each field is as in [`Container`].
#[derive(Debug)]
pub struct GuestPlan {
    /// Its ID.
    pub id: String,
    /// Its root file system.
    pub rootfs: Rootfs,
    /// Its mounts.
    pub mounts: Vec<PlannedMount>,
    /// Its init. A terminal has the size that config.json gives.
    pub process: Process,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// The ID mappings of its user namespace.
    pub id_mappings: Option<IdMappings>,
    /// Offsets of its clocks.
    pub time_offsets: Vec<TimeOffset>,
    /// Its hostname.
    pub hostname: Option<String>,
    /// Its NIS domain name.
    pub domainname: Option<String>,
    /// Device nodes besides the default ones.
    pub devices: Vec<PlannedDevice>,
    /// Path and values of its cgroup.
    pub cgroup: CgroupPlan,
    /// The user that the cgroup is given to.
    pub cgroup_owner: Option<u32>,
    /// `linux.sysctl`.
    pub sysctl: Vec<(String, String)>,
    /// Paths to hide.
    pub masked_paths: Vec<String>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<String>,
    /// Whether it gets an sd_notify(3) socket.
    pub notify: bool,
    /// `linux.personality`.
    pub personality: Option<u32>,
    /// `linux.memoryPolicy`.
    pub memory_policy: Option<MemoryPolicy>,
}

impl GuestPlan {
    /// Whether its limits leave room for core dumps.
    pub fn wants_core_dumps(&self) -> bool {
        self.process.rlimits.iter().any(|limit| limit.resource == libc::RLIMIT_CORE && limit.soft > 0)
    }
}

/// The container's cgroup in the guest.
#[derive(Debug)]
pub struct CgroupPlan {
    /// Path below the guest's cgroup root.
    pub path: String,
    /// Files to write.
    pub values: Vec<(String, String)>,
    /// Device rules.
    pub rules: Vec<PlannedRule>,
}

/// A disk that the VM has not given a slot yet, by its index among the container's disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskNumber(pub(super) u8);

/// One entry of `mounts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedMount {
    /// Absolute path in the container.
    pub destination: String,
    /// What is mounted.
    pub source: PlannedSource,
    /// `MS_*` flags to set.
    pub flags: u64,
    /// `MS_*` propagation changes to make after mounting, in order.
    pub propagation: Vec<u64>,
    /// File-system options, comma-separated.
    pub data: String,
    /// `tmpcopyup`.
    pub copy_up: bool,
}

/// What a [`PlannedMount`] mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedSource {
    /// Something that needs no disk.
    Guest(MountSource),
    /// A file system of this type on a disk.
    Disk(DiskNumber, String),
    /// A file system that lasts as long as the container, on a disk.
    Scratch(DiskNumber),
}

impl From<MountSource> for PlannedSource {
    fn from(source: MountSource) -> Self {
        Self::Guest(source)
    }
}

/// One entry of `linux.devices`, or a device node that is bind-mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedDevice {
    /// A node with the numbers that config.json gives.
    Node(Device),
    /// The node of a disk, whose numbers the guest's kernel gives.
    Disk(DiskNumber, NodeOfDisk),
}

/// The properties of a disk's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOfDisk {
    /// Absolute path in the container.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl PlannedDevice {
    /// Absolute path in the container.
    pub fn path(&self) -> &str {
        match self {
            Self::Node(device) => &device.path,
            Self::Disk(_, node) => &node.path,
        }
    }
}

/// One entry of `linux.resources.devices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedRule {
    /// A rule for device numbers.
    Numbers(DeviceRule),
    /// A rule for a disk.
    Disk(DiskNumber, Access),
}

/// What a [`PlannedRule`] allows or denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Allow or deny.
    pub allow: bool,
    /// Read.
    pub read: bool,
    /// Write.
    pub write: bool,
    /// mknod(2).
    pub mknod: bool,
}

/// What is known about a container only while it is being created.
#[derive(Debug)]
pub struct Late<'a> {
    /// The size of its terminal, if it has one.
    pub terminal: Option<WindowSize>,
    /// The kinds of the descriptors from 3 on that its init gets.
    pub streams: Vec<StreamKind>,
    /// Variables that its init gets besides config.json's.
    pub env: &'a [String],
    /// `linux.seccomp`, compiled.
    pub seccomp: Vec<SeccompFilter>,
    /// Hooks that the agent runs, with the container's state for their standard input.
    pub start_hooks: Vec<container::Hook>,
    /// The slots of its disks, in the order of the disks.
    pub slots: Slots,
}

/// The slots that the VM has given to all disks of a plan.
#[derive(Debug, Default)]
pub struct Slots(Vec<u8>);

impl Slots {
    /// Gets a slot for every disk, in order.
    ///
    /// # Errors
    /// Those of `add`; the slots that were taken before stay taken.
    pub fn fill<D, E>(disks: Vec<D>, add: impl FnMut((usize, D)) -> Result<u8, E>) -> Result<Self, E> {
        disks.into_iter().enumerate().map(add).collect::<Result<_, _>>().map(Self)
    }

    /// Every number in a plan is the index of one of its disks.
    fn of(&self, DiskNumber(number): DiskNumber) -> u8 {
        self.0[usize::from(number)]
    }
}

impl ContainerPlan {
    /// The container as the agent builds it.
    pub fn container(&self, late: Late<'_>) -> Container {
        let Late { terminal, streams, env, seccomp, start_hooks, slots } = late;
        let guest = &self.guest;
        let mut process = Process { terminal, streams, ..guest.process.clone() };
        process.env.extend_from_slice(env);
        Container {
            id: guest.id.clone(),
            rootfs: guest.rootfs.clone(),
            mounts: guest.mounts.iter().map(|mount| mount.with(&slots)).collect(),
            process,
            namespaces: guest.namespaces.clone(),
            id_mappings: guest.id_mappings.clone(),
            time_offsets: guest.time_offsets.clone(),
            hostname: guest.hostname.clone(),
            domainname: guest.domainname.clone(),
            devices: guest.devices.iter().map(|device| device.with(&slots)).collect(),
            cgroup: Cgroup {
                path: guest.cgroup.path.clone(),
                values: guest.cgroup.values.clone(),
                devices: guest.cgroup.rules.iter().map(|rule| rule.with(&slots)).collect(),
            },
            cgroup_owner: guest.cgroup_owner,
            sysctl: guest.sysctl.clone(),
            masked_paths: guest.masked_paths.clone(),
            readonly_paths: guest.readonly_paths.clone(),
            seccomp,
            start_hooks,
            notify: guest.notify,
            personality: guest.personality,
            memory_policy: guest.memory_policy.clone(),
        }
    }
}

impl GuestPlan {
    /// Whether the container's whole /dev is a share of the host.
    pub fn share_covers_dev(&self) -> bool {
        self.mounts.iter().any(|mount| match &mount.source {
            PlannedSource::Guest(source) => is_shared_dev(&mount.destination, source),
            PlannedSource::Disk(..) | PlannedSource::Scratch(_) => false,
        })
    }
}

impl PlannedMount {
    /// Whether its options set a mode.
    pub fn has_mode(&self) -> bool {
        self.data.split(',').any(|option| option.starts_with("mode="))
    }

    fn with(&self, slots: &Slots) -> Mount {
        Mount {
            destination: self.destination.clone(),
            source: match &self.source {
                PlannedSource::Guest(source) => source.clone(),
                PlannedSource::Disk(disk, fstype) => {
                    MountSource::Disk { slot: slots.of(*disk), fstype: fstype.clone() }
                }
                PlannedSource::Scratch(disk) => MountSource::Scratch { slot: slots.of(*disk) },
            },
            flags: self.flags,
            propagation: self.propagation.clone(),
            data: self.data.clone(),
            copy_up: self.copy_up,
        }
    }
}

impl PlannedDevice {
    fn with(&self, slots: &Slots) -> Device {
        match self {
            Self::Node(device) => device.clone(),
            Self::Disk(disk, NodeOfDisk { path, mode, uid, gid }) => Device {
                path: path.clone(),
                kind: DeviceKind::Disk,
                major: slots.of(*disk).into(),
                minor: 0,
                mode: *mode,
                uid: *uid,
                gid: *gid,
            },
        }
    }
}

impl PlannedRule {
    fn with(&self, slots: &Slots) -> DeviceRule {
        match self {
            Self::Numbers(rule) => rule.clone(),
            Self::Disk(disk, Access { allow, read, write, mknod }) => DeviceRule {
                allow: *allow,
                kind: Some(DeviceKind::Disk),
                major: Some(slots.of(*disk).into()),
                minor: Some(0),
                read: *read,
                write: *write,
                mknod: *mknod,
            },
        }
    }
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
