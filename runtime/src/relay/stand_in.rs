//! The relay's own side: becoming what callers look at through /proc/PID.
//!
//! Nothing is written into the bundle's rootfs but the folder that `proc` is mounted on, which images from scratch lack
//! and every runtime makes, and none of its links is followed: it is hostile content, and this process is the host's
//! root until it gives up its capabilities.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{chdir, pivot_root, sethostname, setsid};

use super::launch::{FAILED, MESSAGE, PREPARED, Plan, RelayError, TREES, system};
use super::serve::{self, Ends};
use crate::shares;
use crate::sys::mount::{attach, attach_at, attr, clone_tree, new_file_system, restrict};
use crate::sys::{descriptors, process, signals};
use crate::terminal;

/// The relay's whole life; returns its exit status.
pub(super) fn run(plan: &Plan<'_>, network: Option<BorrowedFd<'_>>, socket: BorrowedFd<'_>) -> i32 {
    match prepare(plan, network, socket) {
        Ok(ends) => serve::serve(ends),
        Err(error) => {
            let mut message = vec![FAILED];
            message.extend_from_slice(error.to_string().as_bytes());
            message.truncate(MESSAGE);
            // A creator that is gone needs no explanation.
            let _ = descriptors::send(socket, &message, &[]);
            1
        }
    }
}

fn prepare(
    plan: &Plan<'_>,
    network: Option<BorrowedFd<'_>>,
    socket: BorrowedFd<'_>,
) -> Result<Ends, RelayError> {
    let signals = signals::block_all().map_err(system("signals"))?;
    if let Some(network) = network {
        setns(network, CloneFlags::CLONE_NEWNET).map_err(|e| system("network namespace")(e.into()))?;
    }
    let mut keep: Vec<RawFd> = vec![0, 1, 2, signals.as_raw_fd(), socket.as_raw_fd()];
    keep.extend([plan.lease, plan.console_log].into_iter().flatten().map(|fd| fd.as_raw_fd()));
    keep.extend(plan.slave.map(|slave| slave.as_raw_fd()));
    descriptors::close_all_but(&keep).map_err(system("close_range"))?;
    setsid().map_err(|e| system("setsid")(e.into()))?;
    take_stdio(plan.slave).map_err(system("stdio"))?;

    let none = None::<&Path>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|e| system("private mounts")(e.into()))?;
    send_trees(plan, socket)?;
    enter_rootfs(plan.rootfs, plan.proc)?;
    if let Some(hostname) = plan.hostname {
        sethostname(hostname).map_err(|e| system("hostname")(e.into()))?;
    }
    let name = Path::new(&plan.args[0]).file_name().and_then(|name| name.to_str()).unwrap_or("container");
    // Refused to a caller without CAP_SYS_RESOURCE: then `ps` shows the runtime's name, which only looks odd.
    let _ = process::set_command_line(name, plan.args);
    give_up_privileges().map_err(system("giving up capabilities"))?;
    descriptors::send(socket, &[PREPARED], &[]).map_err(system("socket"))?;

    Ok(Ends {
        signals,
        creator: adopt(socket),
        lease: plan.lease.map(adopt),
        console_log: plan.console_log.map(|log| adopt(log).into()),
        terminal: plan.terminal,
    })
}

/// Takes over a descriptor of the creator's: this process has its own copy of it.
fn adopt(fd: BorrowedFd<'_>) -> OwnedFd {
    // SAFETY: the owner is in the creator's part of the stack, which a cloned child never returns to.
    unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) }
}

/// Stdio of the relay's own: the terminal that was made for it, or what is inherited, opened anew so that it never
/// blocks.
fn take_stdio(slave: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if let Some(slave) = slave {
        terminal::control_by(slave)?;
        for stdio in 0..=2 {
            let own = descriptors::reopen_nonblocking(slave, stdio != 0)?;
            descriptors::duplicate_to(own.as_raw_fd(), stdio)?;
        }
        // Closed when this scope ends: only stdio stays.
        drop(adopt(slave));
        return Ok(());
    }
    for (stdio, write) in [(0, false), (1, true), (2, true)] {
        // SAFETY: descriptors 0 to 2 are open in every Rust program, and nobody closes them.
        let inherited = unsafe { BorrowedFd::borrow_raw(stdio) };
        let own = descriptors::reopen_nonblocking(inherited, write)?;
        descriptors::duplicate_to(own.as_raw_fd(), stdio)?;
    }
    Ok(())
}

/// Clones the trees where they are seen as the container should see them, and sends them to the creator.
fn send_trees(plan: &Plan<'_>, socket: BorrowedFd<'_>) -> Result<(), RelayError> {
    for trees in plan.trees.chunks(descriptors::PER_MESSAGE) {
        let clones = trees
            .iter()
            .map(shares::clone_tree)
            .collect::<Result<Vec<OwnedFd>, _>>()
            .map_err(|error| RelayError::Failed(error.to_string()))?;
        let raw: Vec<RawFd> = clones.iter().map(AsRawFd::as_raw_fd).collect();
        descriptors::send(socket, &[TREES], &raw).map_err(system("socket"))?;
    }
    Ok(())
}

/// Makes the rootfs this process's root, with a `proc` of its own where the rootfs has a folder for it, which is made
/// where the container has one too.
fn enter_rootfs(rootfs: &Path, make_proc: bool) -> Result<(), RelayError> {
    clone_tree(rootfs, true)
        .and_then(|tree| {
            restrict(tree.as_fd(), attr::NOSUID | attr::NODEV)?;
            attach(tree.as_fd(), rootfs)
        })
        .map_err(system("mount the rootfs"))?;
    chdir(rootfs).map_err(|e| system("enter the rootfs")(e.into()))?;
    if make_proc {
        // It is there already, or is a link, or the file system is read-only: opening it tells.
        let _ = mkdirat(nix::fcntl::AT_FDCWD, "proc", Mode::from_bits_retain(0o755));
    }
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open("proc");
    if let Ok(folder) = folder {
        new_file_system(c"proc", attr::NOSUID | attr::NODEV | attr::NOEXEC)
            .and_then(|proc| attach_at(proc.as_fd(), folder.as_fd()))
            .map_err(system("mount proc"))?;
    }
    // The old root is now on top of the new one, and "." is beneath both.
    pivot_root(".", ".")
        .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
        .and_then(|()| chdir("/"))
        .map_err(|e| system("pivot_root")(e.into()))
}

/// From here on the relay only copies bytes.
fn give_up_privileges() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`, which takes two 32-bit halves of the three sets.
    const VERSION: u32 = 0x2008_0522;
    let header = Header { version: VERSION, pid: 0 };
    let none = [0u32; 6];
    // SAFETY: header and data have the layout of this version.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this option takes integers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
