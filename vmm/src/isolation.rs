//! The VMM's own walls: what is left to a guest that has taken over this process.
//!
//! The runtime has cloned the process into pid, mount, ipc, uts and network namespaces of its own. Here its root
//! becomes an empty tmpfs with two folders: `proc`, because the file server reopens its descriptors through
//! /proc/self/fd, and `shares`, onto which the runtime mounts what the guest may see. Then it gives up every capability
//! that a file server does not need.

use std::{collections::HashSet, fs, io, path::Path};

use caps::{CapSet, Capability, errors::CapsError};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        stat::Mode,
    },
    unistd::{Pid, chdir, getpid, mkdir, pivot_root},
};

/// Where shares are, in the VMM's mount namespace.
pub const SHARES: &str = "/shares";

/// What serving files for all users of a guest takes. Never CAP_SYS_ADMIN: mounting is the runtime's.
const CAPABILITIES: [Capability; 9] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_MKNOD,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
];

/// The file server's threads take on the uid of a request's caller to create files as its own; this keeps their
/// capabilities while they do (capabilities(7), "securebits"). The caller's rights are the guest's to check.
const SECURE_BITS: libc::c_ulong = SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED;
const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
const SECBIT_NO_SETUID_FIXUP_LOCKED: libc::c_ulong = 1 << 3;

/// A folder that every mount namespace has, to mount the new root on before it becomes the root.
const STEPPING_STONE: &str = "/proc";

/// A descriptor per inode that the guest knows; the kernel's default for fs.nr_open.
const MOST_DESCRIPTORS: u64 = 1 << 20;

/// The VMM cannot be walled in.
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
    /// Capabilities cannot be dropped.
    #[error("cannot isolate the VMM: capabilities: {0}")]
    Capabilities(#[from] CapsError),
    /// The cgroup cannot be joined.
    #[error("cannot join the sandbox's cgroup: {0}")]
    Cgroup(io::Error),
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> Error {
    move |source| Error::Call { what, source }
}

/// Joins the cgroup whose `cgroup.procs` is open here.
///
/// # Errors
/// [`Error::Cgroup`].
pub fn join_cgroup(mut procs: fs::File) -> Result<(), Error> {
    io::Write::write_all(&mut procs, b"0").map_err(Error::Cgroup)
}

/// Pivots into an empty root and drops privileges, for this and all later threads.
///
/// # Errors
/// [`Error::Call`], [`Error::Capabilities`].
pub fn enter() -> Result<(), Error> {
    // Whoever is PID 1 was cloned into namespaces by the runtime; a VMM started by a test shares its caller's.
    if getpid() != Pid::from_raw(1) {
        unshare(CloneFlags::CLONE_NEWNS).map_err(failed("unshare(CLONE_NEWNS)"))?;
    }
    enter_empty_root()?;
    raise_descriptor_limit()?;
    drop_capabilities()?;
    prctl::set_no_new_privs().map_err(failed("PR_SET_NO_NEW_PRIVS"))?;
    prctl::set_dumpable(false).map_err(failed("PR_SET_DUMPABLE"))
}

fn enter_empty_root() -> Result<(), Error> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed("private mounts"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // The guest may create files beside the mounts of its share; that must not cost the host more than this.
    let options = Some("mode=755,size=1m,nr_inodes=1024");
    mount(Some("stockade"), STEPPING_STONE, Some("tmpfs"), flags, options)
        .map_err(failed("mount the new root"))?;
    chdir(STEPPING_STONE).map_err(failed("enter the new root"))?;
    for folder in ["proc", &SHARES[1..]] {
        mkdir(Path::new(folder), Mode::from_bits_truncate(0o755)).map_err(failed("mkdir in the new root"))?;
    }
    mount(Some("proc"), "proc", Some("proc"), flags, none).map_err(failed("mount proc"))?;
    // The old root is now on top of the new one, and "." is beneath both.
    pivot_root(".", ".").map_err(failed("pivot_root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("detach the old root"))?;
    chdir("/").map_err(failed("chdir"))
}

/// As far as it may be raised.
fn raise_descriptor_limit() -> Result<(), Error> {
    let resource = Resource::RLIMIT_NOFILE;
    let (soft, hard) = getrlimit(resource).map_err(failed("RLIMIT_NOFILE"))?;
    if soft >= MOST_DESCRIPTORS {
        return Ok(());
    }
    setrlimit(resource, MOST_DESCRIPTORS, hard.max(MOST_DESCRIPTORS))
        .or_else(|_| setrlimit(resource, hard, hard))
        .map_err(failed("RLIMIT_NOFILE"))
}

fn drop_capabilities() -> Result<(), Error> {
    // SAFETY: no pointers are passed.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECURE_BITS) })
        .map_err(failed("PR_SET_SECUREBITS"))?;
    let keep = HashSet::from(CAPABILITIES);
    for capability in caps::all() {
        // It fails on those that this kernel does not know yet.
        if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    // A caller without some of them (a rootless one always has all, in its own user namespace) does without.
    let keep = &keep & &caps::read(None, CapSet::Permitted)?;
    caps::set(None, CapSet::Effective, &keep)?;
    Ok(caps::set(None, CapSet::Permitted, &keep)?)
}
