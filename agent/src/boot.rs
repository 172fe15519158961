//! What the guest needs once, before its first container. Every call here costs time at every start of a pod.

use std::{fs, io, os::fd::AsRawFd};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sys::{
        resource::{Resource, setrlimit},
        socket::{AddressFamily, SockFlag, SockType, socket},
        stat::Mode,
    },
    unistd::{chroot, fchdir},
};
use stockade_protocol::agent::{SHARE_TAG, SHARES};
use stockade_sys::mount_api;

use crate::{
    cgroup,
    error::{Context, Result},
};

/// A container may divide its cgroup but not change the limits of its root, and protection of memory reaches the
/// cgroups below, as in mounts by systemd.
const CGROUP_OPTIONS: &str = "nsdelegate,memory_recursiveprot";

/// Largest number of open files of the agent itself: about ten for every container.
const AGENT_OPEN_FILES: u64 = 1 << 16;

/// Where the agent mounts sysfs when it needs it.
pub const SYSFS: &str = "/run/sys";

/// Sysctls of every guest ([`crate::memory`] has those that follow the memory). There may be as many threads as PIDs,
/// and as many open files as fit into memory. An allocation that is larger than the memory succeeds, as on a host,
/// which has more memory; a container's cgroup limits what it uses.
const SYSCTL: [(&str, &str); 3] = [
    ("/proc/sys/kernel/threads-max", "32768"),
    ("/proc/sys/fs/file-max", "9223372036854775807"),
    ("/proc/sys/vm/overcommit_memory", "1"),
];

/// Makes the guest ready for containers, except for the files that they share with the host.
pub fn prepare() -> Result<()> {
    leave_rootfs()?;
    mount_fs("proc", "/proc", "proc", "")?;
    mount_fs("cgroup2", cgroup::ROOT, "cgroup2", CGROUP_OPTIONS)?;
    cgroup::enable_controllers()?;
    raise_limits()?;
    bring_loopback_up()
}

/// Mounts the files that containers share with the host. From then on the host's file server has a session with the
/// guest, so a template is saved before.
pub fn mount_shares() -> Result<()> {
    mount_shares_with("").or_internal(|| format!("mount virtiofs on {SHARES}"))
}

/// The same with these options.
pub fn mount_shares_with(options: &str) -> nix::Result<()> {
    mount(Some(SHARE_TAG), SHARES, Some("virtiofs"), MsFlags::empty(), Some(options))
}

/// Moves the agent's root to a bind mount over the initial rootfs, which pivot_root(2) cannot leave. The mount must be
/// over the rootfs, because setns(2) into a container's mount namespace takes the topmost mount there as the root.
fn leave_rootfs() -> Result<()> {
    let enter = || {
        let rootfs = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let copy = mount_api::clone_tree(&rootfs, false)?;
        mount_api::attach(&copy, &rootfs)?;
        fchdir(&copy)?;
        chroot(".")
    };
    enter().or_internal(|| "leave the initial root".to_owned())
}

fn mount_fs(source: &str, target: &str, fstype: &str, options: &str) -> Result<()> {
    mount(Some(source), target, Some(fstype), MsFlags::empty(), Some(options))
        .or_internal(|| format!("mount {fstype} on {target}"))
}

/// Raises limits that the kernel has derived from the little memory with which a guest boots; the cgroups have the
/// exact limits.
fn raise_limits() -> Result<()> {
    let unlimited = nix::sys::resource::RLIM_INFINITY;
    setrlimit(Resource::RLIMIT_NOFILE, AGENT_OPEN_FILES, crate::init::MAX_OPEN_FILES)
        .and_then(|()| setrlimit(Resource::RLIMIT_NPROC, unlimited, unlimited))
        .and_then(|()| setrlimit(Resource::RLIMIT_SIGPENDING, unlimited, unlimited))
        .or_internal(|| "raise the resource limits".to_owned())?;
    SYSCTL.iter().try_for_each(|(path, value)| {
        fs::write(path, value).or_internal(|| format!("write {value} to {path}"))
    })
}

/// Mounts sysfs for the agent, unless it is mounted already.
pub fn mount_sysfs() -> Result<()> {
    match fs::create_dir(SYSFS) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.or_internal(|| format!("create {SYSFS}"))?,
    }
    // There is one sysfs for the whole guest: if a container was the first to mount it, read-only, all of it is
    // read-only until it is mounted again. The container's mount does not change.
    mount(Some("sysfs"), SYSFS, Some("sysfs"), MsFlags::empty(), None::<&str>)
        .and_then(|()| mount(None::<&str>, SYSFS, None::<&str>, MsFlags::MS_REMOUNT, None::<&str>))
        .or_internal(|| format!("mount sysfs on {SYSFS}"))
}

/// Makes the /dev that a debugging shell expects, with terminals; containers have their own.
pub fn provide_devices() -> Result<()> {
    const TERMINALS: &str = "/dev/pts";
    match fs::create_dir(TERMINALS) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.or_internal(|| format!("create {TERMINALS}"))?,
    }
    mount_fs("devtmpfs", "/dev", "devtmpfs", "")?;
    fs::create_dir_all(TERMINALS).or_internal(|| format!("create {TERMINALS}"))?;
    mount_fs("devpts", TERMINALS, "devpts", "ptmxmode=0666")
}

fn bring_loopback_up() -> Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .or_internal(|| "open a socket for the loopback interface".to_owned())?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: (libc::IFF_UP | libc::IFF_RUNNING) as i16 },
    };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which `request` is, and stores nothing.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(result).map(drop).or_internal(|| "bring the loopback interface up".to_owned())
}

/// `uname -r`.
pub fn kernel_release() -> Result<String> {
    let names = nix::sys::utsname::uname().or_internal(|| "uname".to_owned())?;
    Ok(names.release().to_string_lossy().into_owned())
}
