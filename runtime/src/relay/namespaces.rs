//! What callers find around a relay: namespaces and a root file system.
//!
//! A container's relay makes its own, and an exec's relay joins them. The bundle's rootfs is hostile content, and the
//! relay is the host's root until it gives up its capabilities: nothing is written into the rootfs except mount points,
//! which every runtime makes, and none of its links is followed out of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{chdir, fchdir, pivot_root, sethostname};
use stockade_sys::mount_api::{attach, attach_at, attr, clone_tree_at, new_file_system, restrict};

use super::create_hooks::CreateHooks;
use super::error::{RelayError, system};
use super::followed;
use super::messages::Message;
use super::mount_points;
use super::service::Service;
use super::view;
use super::watch::watch;
use crate::lower::plan::GuestPlan;
use crate::network::NetworkNamespace;
use crate::sys::descriptors;
use crate::sys::mount::{HARMLESS, own_processes};
use crate::vm::{Tree, shares};

/// Where a relay's namespaces and root come from.
#[derive(Debug)]
pub enum Namespaces<'a> {
    /// The relay stands for a container's init and makes its own namespaces.
    Own(Own<'a>),
    /// The relay stands for an exec and joins the namespaces of this relay, which is given by a pidfd.
    Of(BorrowedFd<'a>),
}

/// What the relay of a container makes.
#[derive(Debug)]
pub struct Own<'a> {
    /// The bundle's root file system.
    pub rootfs: &'a Path,
    /// The container.
    pub container: &'a GuestPlan,
    /// Whether the VM's file server can serve trees in which mounts come and go.
    pub follows: bool,
    /// Trees to clone for the guest.
    pub trees: &'a [Tree],
    /// Hooks that run before the trees are cloned.
    pub hooks: Option<CreateHooks<'a>>,
    /// Its network namespace.
    pub network: &'a NetworkNamespace,
    /// Whether it has a cgroup namespace of its own, which is needed only for its inode.
    pub cgroup_namespace: bool,
    /// Whether it has a time namespace of its own, likewise.
    pub time_namespace: bool,
    /// The user namespace that it enters when it no longer needs privileges.
    pub user: Option<BorrowedFd<'a>>,
    /// Its hostname.
    pub hostname: Option<&'a str>,
    /// The services that the relay offers.
    pub services: &'a [Box<dyn Service + 'a>],
    /// The lease: the VMM lives while this is open. `None` if another relay holds it.
    pub lease: Option<BorrowedFd<'a>>,
    /// The file for the VMM's last message, if this relay holds the lease.
    pub console_log: Option<BorrowedFd<'a>>,
    /// The socket at which other relays leave streams to it ([`super::held_streams`]).
    pub adopted: BorrowedFd<'a>,
}

/// The namespaces that a relay is cloned into.
pub(super) struct CloneInto<'a> {
    new: libc::c_int,
    /// The process whose PID namespace is joined.
    pid_of: Option<BorrowedFd<'a>>,
    /// The network namespace to enter, if it is neither new nor another relay's.
    pub network: Option<File>,
}

impl<'a> Namespaces<'a> {
    /// The namespaces to clone the relay into.
    ///
    /// # Errors
    /// [`RelayError::Network`].
    pub(super) fn namespaces(&self) -> Result<CloneInto<'a>, RelayError> {
        let own = match self {
            Self::Own(own) => own,
            Self::Of(relay) => return Ok(CloneInto { new: 0, pid_of: Some(*relay), network: None }),
        };
        let mut new = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        for (is_wanted, flag, name) in [
            (own.cgroup_namespace, libc::CLONE_NEWCGROUP, "cgroup"),
            (own.time_namespace, libc::CLONE_NEWTIME, "time"),
        ] {
            // A host whose kernel has none does not stop a guest's from having one.
            if is_wanted && Path::new("/proc/self/ns").join(name).exists() {
                new |= flag;
            }
        }
        match own.network {
            NetworkNamespace::New => {
                Ok(CloneInto { new: new | libc::CLONE_NEWNET, pid_of: None, network: None })
            }
            NetworkNamespace::Path(path) => {
                let network =
                    File::open(path).map_err(|cause| RelayError::Network { path: path.clone(), cause })?;
                Ok(CloneInto { new, pid_of: None, network: Some(network) })
            }
        }
    }

    /// The descriptors that the relay needs.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'a>> {
        let (needed, own) = match self {
            Self::Own(own) => ([own.lease, own.console_log, own.user, Some(own.adopted)], Some(own)),
            Self::Of(relay) => ([Some(*relay), None, None, None], None),
        };
        let needed = needed.into_iter().flatten();
        let services = own.map(|own| own.services).unwrap_or_default();
        needed.chain(services.iter().flat_map(|service| service.descriptors()))
    }
}

impl CloneInto<'_> {
    /// Calls `clone` with the flags for clone3(2), so that its child is in the PID namespace that is to be joined.
    ///
    /// # Errors
    /// setns(2)'s, and those of `clone`.
    pub fn for_child<T>(&self, clone: impl FnOnce(libc::c_int) -> io::Result<T>) -> io::Result<T> {
        let Some(relay) = self.pid_of else { return clone(self.new) };
        let own = File::open("/proc/self/ns/pid")?;
        setns(relay, CloneFlags::CLONE_NEWPID)?;
        let result = clone(self.new);
        match setns(own, CloneFlags::CLONE_NEWPID) {
            // Root in a user namespace cannot go back to the host's PID namespace. Later children of this command would
            // be in the container's, but an exec has no later children.
            Ok(()) | Err(Errno::EPERM) => result,
            Err(error) => Err(error.into()),
        }
    }
}

/// Joins the other namespaces of a relay, and so its root.
pub(super) fn join(relay: BorrowedFd<'_>) -> Result<(), RelayError> {
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET;
    setns(relay, namespaces).map_err(|e| system("join the container's namespaces")(e.into()))
}

/// What the relay keeps after making its namespaces and root.
pub(super) struct Made {
    /// Descriptors that keep the trees watched.
    pub watches: Vec<OwnedFd>,
    /// Its procfs, if there is one.
    pub proc: Option<OwnedFd>,
}

impl Own<'_> {
    /// Makes the mounts, sends the trees to the creator, and enters the root.
    pub(super) fn make(&self, socket: BorrowedFd<'_>) -> Result<Made, RelayError> {
        let none = None::<&Path>;
        // Nothing that is mounted here is seen on the host. What the host mounts meanwhile is seen here, and in the trees that
        // are to follow it.
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
            .map_err(|e| system("private mounts")(e.into()))?;
        if let Some(hooks) = &self.hooks {
            hooks.run(socket)?;
        }
        if self.container.rootfs.readonly {
            mount_points::make(self.rootfs, self.container, self.trees);
        }
        let watches = self.send_trees(socket)?;
        let needs_proc = self.services.iter().any(|service| service.needs_proc());
        let proc = self.enter_rootfs(needs_proc)?;
        if let Some(hostname) = self.hostname {
            sethostname(hostname).map_err(|e| system("hostname")(e.into()))?;
        }
        Ok(Made { watches, proc })
    }

    /// Clones the trees in the namespace in which they are as the container should see them, and sends them to the
    /// creator.
    fn send_trees(&self, socket: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, RelayError> {
        let mut watches = Vec::new();
        for trees in self.trees.chunks(descriptors::PER_MESSAGE) {
            let mut clones = Vec::new();
            for tree in trees {
                let tree = Tree { follows: tree.follows && self.follows, ..tree.clone() };
                let clone =
                    shares::clone_tree(&tree).map_err(|error| RelayError::Failed(error.to_string()))?;
                if tree.is_atomic_volume {
                    watches.push(
                        watch(clone.as_fd())
                            .map_err(system("watch a directory that the container has a copy of"))?,
                    );
                }
                clones.push((tree.follows, clone));
            }
            if clones.iter().any(|(follows, _)| *follows) {
                let followed = clones.iter().filter_map(|(follows, clone)| follows.then_some(clone));
                watches.push(
                    followed::attach_trees(followed)
                        .map_err(system("a mount namespace of the container's trees"))?,
                );
            }
            let raw: Vec<RawFd> = clones.iter().map(|(_, clone)| clone.as_raw_fd()).collect();
            Message::Trees.send_with(socket, &raw).map_err(system("socket"))?;
        }
        Ok(watches)
    }

    /// Makes the rootfs this process's root, with the container's mounts and with a `proc` of its own if the rootfs has
    /// a directory for it. If the container has a `proc` too, the directory is made. Without the directory, a procfs
    /// that is needed is opened without being mounted.
    fn enter_rootfs(&self, needs_proc: bool) -> Result<Option<OwnedFd>, RelayError> {
        let rootfs = clone_tree_at(self.rootfs, true, false)
            .and_then(|tree| {
                restrict(&tree, attr::NOSUID | attr::NODEV)?;
                attach_at(&tree, self.rootfs)?;
                Ok(tree)
            })
            .map_err(|e| system("mount the rootfs")(e.into()))?;
        let root = view::make(rootfs, self.rootfs, self.container, self.trees)?;
        fchdir(&root).map_err(|e| system("enter the rootfs")(e.into()))?;
        if self.container.mounts.iter().any(|mount| mount.destination == "/proc") {
            // The directory exists already, or is a link, or the file system is read-only: opening it will show.
            let _ = mkdirat(nix::fcntl::AT_FDCWD, "proc", Mode::from_bits_retain(0o755));
        }
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open("proc");
        let proc = match directory.ok() {
            None if !needs_proc => None,
            directory => Some(mount_proc(directory.as_ref().map(AsFd::as_fd)).map_err(system("mount proc"))?),
        };
        // The old root is now on top of the new one, and "." is beneath both.
        pivot_root(".", ".")
            .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
            .and_then(|()| chdir("/"))
            .map_err(|e| system("pivot_root")(e.into()))?;
        Ok(proc)
    }
}

/// Makes a procfs, mounted on `directory` if there is one. Nothing in it can be written to, so that an attacker in the
/// relay cannot reach the host through it: every file of a procfs belongs to the host's root, who needs no capability
/// to write to it. Engines read more there than processes (`podman top` reads the time of the boot in /proc/stat), but
/// no sysctl.
fn mount_proc(directory: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let Some(directory) = directory else { return Ok(own_processes()?) };
    let proc = new_file_system("proc", "proc", "", HARMLESS)?;
    attach(&proc, directory)?;
    let sysctls = openat(&proc, "sys", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    attach(new_file_system("tmpfs", "tmpfs", "", HARMLESS)?, sysctls)?;
    Ok(proc)
}
