//! The isolation of the VMM and its file server, which limits a guest that has taken one of them over.
//!
//! ```text
//!  cloned by the runtime into pid, mount, ipc, uts and network namespaces of their own
//!   │ enter: an empty read-only root; whatever is needed of procfs is open
//!   ├─ forks the file server (crate::file_server), which keeps a few capabilities and is left none of the machine
//!   └─ confine: a user of its own without capabilities, Landlock, few descriptors; seccomp follows thread by thread
//! ```
//!
//! Code in the VMM can reach its guest's memory, its devices, and the messages to the file server.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
    unistd::{Gid, Pid, Uid, chdir, getpid, pivot_root, setgroups, setresgid, setresuid},
};
use stockade_sys::{capabilities, landlock};

/// A directory that every mount namespace has, on which the new root is mounted before it becomes the root.
const STEPPING_STONE: &str = "/proc";

/// Largest number of descriptors of the VMM: a thousand connections of vsock, and its devices.
const MAX_DESCRIPTORS: u64 = 2048;

const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const MOUNT_ATTR_RDONLY: libc::c_uint = 1;
const MOUNT_ATTR_NOSUID: libc::c_uint = 2;
const MOUNT_ATTR_NODEV: libc::c_uint = 4;
const MOUNT_ATTR_NOEXEC: libc::c_uint = 8;

/// Why a process cannot be isolated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot isolate the VMM: {what}: {source}")]
    Call {
        /// What it was for.
        what: &'static str,
        /// Why it failed.
        source: Errno,
    },
    /// Another step failed.
    #[error("cannot isolate the VMM: {what}: {source}")]
    Step {
        /// What it was for.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The cgroup cannot be joined.
    #[error("cannot join the sandbox's cgroup: {0}")]
    Cgroup(io::Error),
}

pub(crate) fn failed(what: &'static str) -> impl FnOnce(Errno) -> Error {
    move |source| Error::Call { what, source }
}

pub(crate) fn step(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Step { what, source }
}

/// Joins the cgroup whose `cgroup.procs` is open here.
///
/// # Errors
/// [`Error::Cgroup`].
pub fn join_cgroup(mut procs: File) -> Result<(), Error> {
    procs.write_all(b"0").map_err(Error::Cgroup)
}

/// A procfs of this PID namespace that is not mounted.
#[derive(Debug)]
pub struct Procfs(OwnedFd);

impl Procfs {
    fn new() -> Result<Self, Error> {
        // SAFETY: the name is a C string.
        let context =
            descriptor(unsafe { libc::syscall(libc::SYS_fsopen, c"proc".as_ptr(), libc::FSOPEN_CLOEXEC) })
                .map_err(failed("fsopen(proc)"))?;
        let null = std::ptr::null::<libc::c_char>();
        // SAFETY: this command takes no key and no value.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0)
        })
        .map_err(failed("fsconfig(proc)"))?;
        let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        // SAFETY: takes a descriptor and numbers.
        let mounted = unsafe {
            libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, attributes)
        };
        Ok(Self(descriptor(mounted).map_err(failed("fsmount(proc)"))?))
    }

    /// Opens one of its files for reading. Later reads are not checked again.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn open(&self, path: &str) -> Result<File, Error> {
        let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&self.0, path, flags, nix::sys::stat::Mode::empty());
        Ok(file.map_err(failed("open a file of proc"))?.into())
    }

    /// The number of its descriptor.
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// An O_PATH descriptor of this process's `self/fd`, from which ".." leads nowhere. The process gets a mount
    /// namespace of its own, in which the rest of procfs is gone.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn into_descriptors(self) -> Result<OwnedFd, Error> {
        // Only what is attached can be cloned, and nobody else is to see it meanwhile.
        unshare(CloneFlags::CLONE_NEWNS).map_err(failed("unshare(CLONE_NEWNS)"))?;
        // SAFETY: both paths are C strings.
        Errno::result(unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                c"/".as_ptr(),
                libc::MOVE_MOUNT_F_EMPTY_PATH,
            )
        })
        .map_err(failed("attach proc"))?;
        let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
        // SAFETY: the path is a C string.
        let clone = descriptor(unsafe {
            libc::syscall(libc::SYS_open_tree, self.0.as_raw_fd(), c"self/fd".as_ptr(), flags)
        })
        .map_err(failed("clone proc/self/fd"))?;
        nix::unistd::fchdir(&self.0)
            .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
            .and_then(|()| chdir("/"))
            .map_err(failed("detach proc"))?;
        Ok(clone)
    }
}

fn descriptor(returned: libc::c_long) -> Result<OwnedFd, Errno> {
    let number = Errno::result(returned)?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number as RawFd) })
}

/// Pivots into an empty, read-only root, for this process and those that it forks.
///
/// # Errors
/// [`Error::Call`], [`Error::Step`].
pub fn enter() -> Result<Procfs, Error> {
    // As PID 1, this process was cloned into new namespaces by the runtime; a VMM that a test has started shares its
    // caller's.
    if getpid() != Pid::from_raw(1) {
        unshare(CloneFlags::CLONE_NEWNS).map_err(failed("unshare(CLONE_NEWNS)"))?;
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed("private mounts"))?;
    // In a user namespace, only a process that sees a procfs may make another one.
    let procfs = Procfs::new()?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = Some("mode=555,size=4k,nr_inodes=1");
    mount(Some("stockade"), STEPPING_STONE, Some("tmpfs"), flags, options)
        .map_err(failed("mount the new root"))?;
    chdir(STEPPING_STONE).map_err(failed("enter the new root"))?;
    // The old root is now on top of the new one, and "." is beneath both.
    pivot_root(".", ".").map_err(failed("pivot_root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("detach the old root"))?;
    chdir("/").map_err(failed("chdir"))?;
    capabilities::bound(0).map_err(failed("PR_CAPBSET_DROP"))?;
    Ok(procfs)
}

/// Confines the VMM, for this and all later threads: it becomes `user`, if there is one, and gives up all privileges.
/// Everything that needs a privilege must have been opened before.
///
/// # Errors
/// [`Error::Call`], [`Error::Step`].
pub fn confine(user: Option<u32>) -> Result<(), Error> {
    let _ = limit_descriptors(MAX_DESCRIPTORS)?;
    if let Some(user) = user {
        let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
        setgroups(&[]).map_err(failed("setgroups"))?;
        setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
        setresuid(uid, uid, uid).map_err(failed("setresuid"))?;
    }
    capabilities::keep(0).map_err(failed("capset"))?;
    make_unreachable()?;
    landlock::restrict(&[], &[]).map_err(failed("Landlock"))
}

/// Sets no_new_privs, and prevents other processes of the same user from looking into this one.
///
/// # Errors
/// [`Error::Call`].
pub(crate) fn make_unreachable() -> Result<(), Error> {
    prctl::set_no_new_privs().map_err(failed("PR_SET_NO_NEW_PRIVS"))?;
    prctl::set_dumpable(false).map_err(failed("PR_SET_DUMPABLE"))
}

/// Limits the descriptors to `most`, or to the hard limit if that is lower; returns what they are limited to.
///
/// # Errors
/// [`Error::Call`].
pub(crate) fn limit_descriptors(most: u64) -> Result<u64, Error> {
    let resource = Resource::RLIMIT_NOFILE;
    setrlimit(resource, most, most)
        .map(|()| most)
        .or_else(|_| {
            let (_, hard) = nix::sys::resource::getrlimit(resource)?;
            let most = hard.min(most);
            setrlimit(resource, most, most).map(|()| most)
        })
        .map_err(failed("RLIMIT_NOFILE"))
}
