//! What callers find around a relay: namespaces and a root file system.
//!
//! A container's relay makes its own. Nothing is written into the bundle's rootfs but what its mounts need to be on, which
//! every runtime makes, and none of its links leads out: it is hostile content, and the relay is the host's root
//! until it gives up its capabilities. An exec's relay joins those.

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
    /// It makes its own: it stands for a container's init.
    Own(Own<'a>),
    /// They are those of this relay, a pidfd: it stands for an exec.
    Of(BorrowedFd<'a>),
}

/// What the relay of a container makes.
#[derive(Debug)]
pub struct Own<'a> {
    /// The bundle's root file system.
    pub rootfs: &'a Path,
    /// The container.
    pub container: &'a GuestPlan,
    /// The VM has a file server that serves trees where mounts come and go.
    pub follows: bool,
    /// Trees to clone for the guest.
    pub trees: &'a [Tree],
    /// What is done before that.
    pub hooks: Option<CreateHooks<'a>>,
    /// Its network namespace.
    pub network: &'a NetworkNamespace,
    /// It has a cgroup namespace of its own, for its inode alone.
    pub cgroup_namespace: bool,
    /// The same of a time namespace.
    pub time_namespace: bool,
    /// The user namespace that it enters when it needs no privileges any more.
    pub user: Option<BorrowedFd<'a>>,
    /// Its hostname.
    pub hostname: Option<&'a str>,
    /// What it offers besides the process.
    pub services: &'a [Box<dyn Service + 'a>],
    /// The VMM lives while this is open; `None` where that is another's business.
    pub lease: Option<BorrowedFd<'a>>,
    /// Where what the VMM says when it ends goes, if this relay holds its lease.
    pub console_log: Option<BorrowedFd<'a>>,
    /// Where others leave streams to it ([`super::held_streams`]).
    pub adopted: BorrowedFd<'a>,
}

/// The namespaces that a relay is cloned into.
pub(super) struct CloneInto<'a> {
    new: libc::c_int,
    /// Whose PID namespace is joined.
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
    /// Calls `clone` with the flags for clone3(2), its child being in the PID namespace that is to be joined.
    ///
    /// # Errors
    /// setns(2)'s, and those of `clone`.
    pub fn for_child<T>(&self, clone: impl FnOnce(libc::c_int) -> io::Result<T>) -> io::Result<T> {
        let Some(relay) = self.pid_of else { return clone(self.new) };
        let own = File::open("/proc/self/ns/pid")?;
        setns(relay, CloneFlags::CLONE_NEWPID)?;
        let result = clone(self.new);
        match setns(own, CloneFlags::CLONE_NEWPID) {
            // Root in a user namespace cannot go back to the host's: a later child of this command would be in the
            // container's, and an exec has none.
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

/// What is left of making a relay's namespaces and root.
pub(super) struct Made {
    /// Keep the trees watched.
    pub watches: Vec<OwnedFd>,
    /// Its procfs, where the rootfs has a directory for one.
    pub proc: Option<OwnedFd>,
}

impl Own<'_> {
    /// Makes the mounts, tells the creator of the trees, and enters the root.
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

    /// Clones the trees where they are seen as the container should see them, and sends them to the creator.
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

    /// Makes the rootfs this process's root, with the container's mounts and a `proc` of its own where the rootfs has a directory
    /// for it, which is made where the container has one too. One that is needed is there without a directory, too, but mounted
    /// nowhere.
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
            // It is there already, or is a link, or the file system is read-only: opening it tells.
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

/// A procfs, mounted on `directory` if there is one. Nothing in it can be written to, so that nobody who gets into the relay
/// reaches the host by it: every file of a procfs is the host's root's, who needs no capability for it. Engines read more
/// there than processes (`podman top` the time of the boot, in /proc/stat), but no sysctl.
fn mount_proc(directory: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let Some(directory) = directory else { return Ok(own_processes()?) };
    let proc = new_file_system("proc", "proc", "", HARMLESS)?;
    attach(&proc, directory)?;
    let sysctls = openat(&proc, "sys", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    attach(new_file_system("tmpfs", "tmpfs", "", HARMLESS)?, sysctls)?;
    Ok(proc)
}
