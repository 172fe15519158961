//! The ways out.

use std::ffi::CStr;

use crate::call::{
    Outcome, at, attempt, attempt_descriptor, attempt_until, call, close, text, with_any_descriptor,
};

/// The name of an abstract UNIX socket of the host, on which the test listens.
pub const ABSTRACT_SOCKET: &[u8] = b"stockade-takeover";

const HERE: libc::c_long = libc::AT_FDCWD as libc::c_long;
const CORE_PATTERN: &CStr = c"/proc/sys/kernel/core_pattern";
const WRITE: libc::c_long = libc::O_WRONLY as libc::c_long;
const READ: libc::c_long = libc::O_RDONLY as libc::c_long;
const NEW: libc::c_long = (libc::O_CREAT | libc::O_WRONLY) as libc::c_long;

/// Of fcntl.h.
const F_SETSIG: libc::c_int = 10;
const DN_CREATE: libc::c_int = 4;

type Attempt = (&'static str, fn() -> Outcome);

/// All of them.
pub fn all() -> impl Iterator<Item = Attempt> {
    [FILES, PROCESSES, RIGHTS, MEMORY, SOCKETS, KERNEL, DESCRIPTORS].into_iter().flatten().copied()
}

const FILES: &[Attempt] = &[
    ("open core_pattern", || attempt_descriptor(libc::SYS_openat, &[HERE, text(CORE_PATTERN), WRITE])),
    ("open core_pattern by open", || attempt_descriptor(libc::SYS_open, &[text(CORE_PATTERN), WRITE])),
    ("open core_pattern by openat2", || {
        let how = [WRITE as u64, 0, 0];
        attempt_descriptor(libc::SYS_openat2, &[HERE, text(CORE_PATTERN), at(&how), 24])
    }),
    ("open core_pattern beside a descriptor", || with_any_descriptor(beside)),
    ("find anything in the root", || list(c"/")),
    ("find anything above the root", || list(c"../../../..")),
    ("find anything of procfs", || list(c"/proc")),
    ("find anything by a descriptor's link", || list(c"/proc/self/fd/0/..")),
    ("find a sibling of a descriptor's directory", || {
        with_any_descriptor(|descriptor| {
            let above =
                call(libc::SYS_openat, &[descriptor, text(c".."), READ | libc::O_DIRECTORY as libc::c_long])?;
            let outcome = foreign_entries(above);
            close(above);
            outcome
        })
    }),
    ("read a password", || attempt_descriptor(libc::SYS_openat, &[HERE, text(c"/etc/shadow"), READ])),
    ("create a file in the root", || {
        attempt_descriptor(libc::SYS_openat, &[HERE, text(c"/made"), NEW, 0o666])
    }),
    ("create a file in the current directory", || {
        attempt_descriptor(libc::SYS_openat, &[HERE, text(c"made"), NEW, 0o666])
    }),
    ("make a directory", || attempt(libc::SYS_mkdirat, &[HERE, text(c"/made"), 0o777])),
    ("make a disk's node", || attempt(libc::SYS_mknodat, &[HERE, text(c"/made"), 0o060666, 8 << 8])),
    ("make a disk's node by mknod", || attempt(libc::SYS_mknod, &[text(c"/made"), 0o060666, 8 << 8])),
    ("make a link", || attempt(libc::SYS_symlinkat, &[text(c"/proc"), HERE, text(c"/made")])),
    ("open a file by its handle", || {
        // The root of a file system: type 1, eight bytes of inode and generation.
        let handle: [u32; 5] = [8, 1, 2, 0, 0];
        with_any_descriptor(|descriptor| {
            attempt_descriptor(libc::SYS_open_by_handle_at, &[descriptor, at(&handle), READ])
        })
    }),
    ("take a file's handle", || {
        let (mut handle, mut mount) = ([0u32; 34], 0i32);
        handle[0] = 128;
        attempt(
            libc::SYS_name_to_handle_at,
            &[HERE, text(c"/"), &raw mut handle as libc::c_long, &raw mut mount as libc::c_long, 0],
        )
    }),
    ("watch the root", || attempt_descriptor(libc::SYS_inotify_init1, &[0])),
    ("watch all files", || attempt_descriptor(libc::SYS_fanotify_init, &[0, READ])),
    ("set a quota", || attempt(libc::SYS_quotactl, &[0, text(c"/dev/sda"), 0, 0])),
    ("remove the root's mount", || {
        attempt(libc::SYS_umount2, &[text(c"/"), libc::MNT_DETACH as libc::c_long])
    }),
    ("mount a proc", || attempt(libc::SYS_mount, &[text(c"proc"), text(c"/"), text(c"proc"), 0, 0])),
    ("make a file system", || attempt_descriptor(libc::SYS_fsopen, &[text(c"proc"), 0])),
    ("clone a tree", || attempt_descriptor(libc::SYS_open_tree, &[HERE, text(c"/"), 1])),
    ("move a mount", || {
        with_any_descriptor(|tree| attempt(libc::SYS_move_mount, &[tree, text(c""), HERE, text(c"/"), 4]))
    }),
    ("make a mount writable", || {
        let attributes: [u64; 4] = [0, 1, 0, 0];
        attempt(libc::SYS_mount_setattr, &[HERE, text(c"/"), 0x8000, at(&attributes), 32])
    }),
    ("change the root", || attempt(libc::SYS_chroot, &[text(c"/")])),
    ("pivot the root", || attempt(libc::SYS_pivot_root, &[text(c"."), text(c".")])),
];

const PROCESSES: &[Attempt] = &[
    ("trace the parent", || attempt(libc::SYS_ptrace, &[libc::PTRACE_SEIZE as libc::c_long, parent()])),
    ("trace the first process", || attempt(libc::SYS_ptrace, &[libc::PTRACE_SEIZE as libc::c_long, other()])),
    ("read another process's memory", || vector(libc::SYS_process_vm_readv)),
    ("write another process's memory", || vector(libc::SYS_process_vm_writev)),
    ("signal the parent", || attempt(libc::SYS_kill, &[parent(), 0])),
    ("signal another process", || attempt(libc::SYS_kill, &[other(), 0])),
    ("signal everybody", || attempt(libc::SYS_kill, &[-1, 0])),
    ("signal another process's thread", || attempt(libc::SYS_tgkill, &[other(), other(), 0])),
    ("queue a signal to another process", || {
        let info = [0u64; 16];
        attempt(libc::SYS_rt_sigqueueinfo, &[other(), libc::SIGURG as libc::c_long, at(&info)])
    }),
    ("open another process", || attempt_descriptor(libc::SYS_pidfd_open, &[other(), 0])),
    ("signal by a descriptor", || {
        with_any_descriptor(|descriptor| attempt(libc::SYS_pidfd_send_signal, &[descriptor, 0, 0, 0]))
    }),
    ("take another process's descriptor", || {
        with_any_descriptor(|descriptor| attempt_descriptor(libc::SYS_pidfd_getfd, &[descriptor, 0, 0]))
    }),
    ("fork", || child(libc::SYS_fork, &[])),
    ("fork by clone", || child(libc::SYS_clone, &[libc::SIGCHLD as libc::c_long])),
    ("fork by clone3", || {
        let mut arguments = [0u64; 8];
        arguments[4] = libc::SIGCHLD as u64;
        child(libc::SYS_clone3, &[at(&arguments), 64])
    }),
    ("fork into a user namespace", || {
        child(libc::SYS_clone, &[(libc::CLONE_NEWUSER | libc::SIGCHLD) as libc::c_long])
    }),
    ("execute a shell", || {
        let arguments = [c"/bin/sh".as_ptr(), std::ptr::null()];
        attempt(libc::SYS_execve, &[text(c"/bin/sh"), at(&arguments), 0])
    }),
    ("execute a descriptor", || {
        let arguments = [c"sh".as_ptr(), std::ptr::null()];
        with_any_descriptor(|program| {
            attempt(
                libc::SYS_execveat,
                &[program, text(c""), at(&arguments), 0, libc::AT_EMPTY_PATH as libc::c_long],
            )
        })
    }),
    ("make a user namespace", || attempt(libc::SYS_unshare, &[libc::CLONE_NEWUSER as libc::c_long])),
    ("make a mount namespace", || attempt(libc::SYS_unshare, &[libc::CLONE_NEWNS as libc::c_long])),
    ("make a network namespace", || attempt(libc::SYS_unshare, &[libc::CLONE_NEWNET as libc::c_long])),
    ("enter a namespace", || with_any_descriptor(|namespace| attempt(libc::SYS_setns, &[namespace, 0]))),
    ("compare with another process", || attempt(libc::SYS_kcmp, &[other(), parent(), 1, 0, 0])),
    ("move another process's pages", || attempt(libc::SYS_move_pages, &[other(), 0, 0, 0, 0, 0])),
];

const RIGHTS: &[Attempt] = &[
    ("become root", || change_user(libc::SYS_setresuid)),
    ("become root's group", || change_user(libc::SYS_setresgid)),
    ("become another user", || attempt(libc::SYS_setresuid, &[12345, 12345, 12345])),
    ("join groups", || {
        let groups = [0u32, 6];
        attempt(libc::SYS_setgroups, &[2, at(&groups)])
    }),
    ("gain capabilities", || {
        let header = [0x2008_0522u32, 0];
        let all = [u32::MAX; 6];
        attempt(libc::SYS_capset, &[at(&header), at(&all)])
    }),
    ("be dumpable", || attempt(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE as libc::c_long, 1])),
    ("keep capabilities", || attempt(libc::SYS_prctl, &[libc::PR_SET_KEEPCAPS as libc::c_long, 1])),
    ("unlock secure bits", || attempt(libc::SYS_prctl, &[libc::PR_SET_SECUREBITS as libc::c_long, 0])),
    ("be traced by anybody", || attempt(libc::SYS_prctl, &[libc::PR_SET_PTRACER as libc::c_long, -1])),
    ("change the memory map", || attempt(libc::SYS_prctl, &[libc::PR_SET_MM as libc::c_long, 1, 0])),
    ("change the personality", || attempt(libc::SYS_personality, &[libc::ADDR_NO_RANDOMIZE as libc::c_long])),
    ("raise a limit", || {
        let limit = [1u64 << 40, 1 << 40];
        attempt(libc::SYS_prlimit64, &[0, libc::RLIMIT_NOFILE as libc::c_long, at(&limit), 0])
    }),
    ("change another process's limit", || {
        let limit = [1u64, 1];
        attempt(libc::SYS_prlimit64, &[other(), libc::RLIMIT_CORE as libc::c_long, at(&limit), 0])
    }),
    ("run before everybody", || {
        let priority = 99i32;
        attempt(libc::SYS_sched_setscheduler, &[0, libc::SCHED_FIFO as libc::c_long, at(&priority)])
    }),
    ("be nicer to itself", || attempt(libc::SYS_setpriority, &[0, 0, -20])),
    ("use ports", || attempt(libc::SYS_iopl, &[3])),
    ("use some ports", || attempt(libc::SYS_ioperm, &[0x70, 1, 1])),
    ("change segments", || {
        let entry = [0u32; 4];
        attempt(libc::SYS_modify_ldt, &[1, at(&entry), 16])
    }),
];

const MEMORY: &[Attempt] = &[
    ("map code", || map(libc::PROT_READ | libc::PROT_EXEC)),
    ("map code that can be written", || map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)),
    ("make data code", || protect(libc::SYS_mprotect, &[])),
    ("make data code with a key", || protect(libc::SYS_pkey_mprotect, &[-1])),
    ("read data as code", || attempt(libc::SYS_prctl, &[libc::PR_SET_MM as libc::c_long, 7])),
    ("make a file of memory", || attempt_descriptor(libc::SYS_memfd_create, &[text(c"code"), 0])),
    ("make secret memory", || attempt_descriptor(libc::SYS_memfd_secret, &[0])),
    ("share memory with the host", || attempt(libc::SYS_shmget, &[0x5eed, 4096, 0o1666])),
    ("handle page faults", || attempt_descriptor(libc::SYS_userfaultfd, &[1])),
];

const SOCKETS: &[Attempt] = &[
    ("make a UNIX socket", || socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)),
    ("make a UNIX datagram socket", || socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)),
    ("make a TCP socket", || socket(libc::AF_INET, libc::SOCK_STREAM, 0)),
    ("make a UDP socket", || socket(libc::AF_INET, libc::SOCK_DGRAM, 0)),
    ("make an IPv6 socket", || socket(libc::AF_INET6, libc::SOCK_STREAM, 0)),
    ("make a raw socket", || socket(libc::AF_INET, libc::SOCK_RAW, 1)),
    ("make a packet socket", || socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
    ("make a netlink socket", || socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)),
    ("make a netlink socket of audit", || socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT)),
    ("make a vsock socket", || socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    ("make a socket of the kernel's ciphers", || socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ("make a pair of sockets", || {
        let mut pair = [0i32; 2];
        attempt(
            libc::SYS_socketpair,
            &[
                libc::AF_UNIX as libc::c_long,
                libc::SOCK_STREAM as libc::c_long,
                0,
                &raw mut pair as libc::c_long,
            ],
        )
    }),
    ("connect to the host's abstract socket", connect_abstract),
    ("connect to the host's init", || connect_path(c"/run/systemd/private")),
    ("send a descriptor", send_descriptor),
    ("listen", || with_any_descriptor(|socket| attempt(libc::SYS_listen, &[socket, 1]))),
    ("bind", || {
        let address = unix_address(b"\0taken");
        with_any_descriptor(|socket| attempt(libc::SYS_bind, &[socket, at(&address), 8]))
    }),
];

const KERNEL: &[Attempt] = &[
    ("load a BPF program", || {
        let attributes = [0u64; 16];
        attempt_until(libc::SYS_bpf, &[0, at(&attributes), 128], &[libc::EINVAL])
    }),
    ("make a ring of io_uring", || {
        let parameters = [0u64; 15];
        attempt_descriptor(libc::SYS_io_uring_setup, &[4, at(&parameters)])
    }),
    ("measure performance", || {
        let mut attributes = [0u64; 16];
        attributes[0] = 128 << 32 | 1;
        attempt_descriptor(libc::SYS_perf_event_open, &[at(&attributes), 0, -1, -1, 0])
    }),
    ("use a keyring", || attempt(libc::SYS_keyctl, &[0, -4, 1])),
    ("add a key", || attempt(libc::SYS_add_key, &[text(c"user"), text(c"taken"), text(c"x"), 1, -4])),
    ("ask for a key", || {
        attempt_until(libc::SYS_request_key, &[text(c"user"), text(c"none"), 0, -4], &[libc::ENOKEY])
    }),
    ("load a module", || {
        attempt_until(libc::SYS_init_module, &[0, 0, text(c"")], &[libc::ENOEXEC, libc::EFAULT])
    }),
    ("load a module's file", || {
        with_any_descriptor(|file| {
            attempt_until(libc::SYS_finit_module, &[file, text(c""), 0], &[libc::ENOEXEC])
        })
    }),
    ("remove a module", || attempt_until(libc::SYS_delete_module, &[text(c"none"), 0], &[libc::ENOENT])),
    ("load another kernel", || attempt_until(libc::SYS_kexec_load, &[0, 0, 0, 0], &[libc::EINVAL])),
    // With magic numbers that are none: who may reboot is told so.
    ("reboot", || attempt_until(libc::SYS_reboot, &[0, 0, 0, 0], &[libc::EINVAL])),
    ("swap", || attempt_until(libc::SYS_swapon, &[text(c"/none"), 0], &[libc::ENOENT])),
    ("stop swapping", || attempt_until(libc::SYS_swapoff, &[text(c"/none")], &[libc::ENOENT])),
    ("account processes", || attempt(libc::SYS_acct, &[0])),
    ("read the kernel's log", || attempt(libc::SYS_syslog, &[10, 0, 0])),
    ("name the host", || attempt(libc::SYS_sethostname, &[text(c"taken"), 5])),
    ("set the clock", || {
        let time = [1i64 << 40, 0];
        attempt(libc::SYS_clock_settime, &[0, at(&time)])
    }),
    ("adjust the clock", || {
        let mut time = [0u64; 26];
        time[0] = 1;
        attempt(libc::SYS_adjtimex, &[&raw mut time as libc::c_long])
    }),
    ("hang up the terminal", || attempt(libc::SYS_vhangup, &[])),
];

const DESCRIPTORS: &[Attempt] = &[
    ("type into a terminal", || ioctl(libc::TIOCSTI as u32)),
    ("make a VM", || ioctl(0xae01)),
    ("make a device of a VM", || ioctl(0xc00c_aee0)),
    ("route a VM's interrupts", || ioctl(0x4008_ae6a)),
    ("give a VM abilities", || ioctl(0x4068_aea3)),
    ("make a tap", || ioctl(0x4004_54ca)),
    ("make a tap stay", || ioctl(0x4004_54cb)),
    ("change a file's flags", || ioctl(0x4008_6602)),
    ("attach a loop device", || ioctl(0x4c00)),
    ("have a descriptor's signals sent", || fcntl(libc::F_SETOWN, 1)),
    ("choose a descriptor's signal", || fcntl(F_SETSIG, libc::SIGKILL)),
    ("lease a file", || fcntl(libc::F_SETLEASE, libc::F_RDLCK)),
    ("watch a directory", || fcntl(libc::F_NOTIFY, DN_CREATE)),
    ("have descriptors send signals", || fcntl(libc::F_SETFL, libc::O_ASYNC)),
];

/// Another process than this one's.
fn other() -> libc::c_long {
    // The first of its namespace, or the second, where it is the first itself.
    if std::process::id() == 1 { 2 } else { 1 }
}

/// The parent, which is outside of the PID namespace of its first process; then whoever is there of that number.
fn parent() -> libc::c_long {
    // SAFETY: takes nothing and cannot fail.
    let parent = unsafe { libc::getppid() };
    if parent > 0 { parent.into() } else { other() }
}

/// Opens core_pattern by a path that begins at a descriptor.
fn beside(descriptor: libc::c_long) -> Outcome {
    let names = [
        c"sys/kernel/core_pattern",
        c"../sys/kernel/core_pattern",
        c"../../sys/kernel/core_pattern",
        c"../../../proc/sys/kernel/core_pattern",
    ];
    let mut outcome = Err(libc::ENOENT);
    for name in names {
        outcome = attempt_descriptor(libc::SYS_openat, &[descriptor, text(name), WRITE]);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Opens a directory and looks for an entry in it.
fn list(path: &'static CStr) -> Outcome {
    let directory = call(libc::SYS_openat, &[HERE, text(path), READ | libc::O_DIRECTORY as libc::c_long])?;
    let outcome = foreign_entries(directory);
    close(directory);
    outcome
}

/// Done where there is anything besides "." and "..", and all that is there are numbers (of this process's descriptors).
fn foreign_entries(directory: libc::c_long) -> Outcome {
    let mut entries = [0u64; 512];
    let length = call(libc::SYS_getdents64, &[directory, &raw mut entries as libc::c_long, 4096])? as usize;
    // SAFETY: the kernel has written that many bytes of the buffer.
    let mut rest = unsafe { std::slice::from_raw_parts(entries.as_ptr().cast::<u8>(), length.min(4096)) };
    while rest.len() > 19 {
        let size = usize::from(u16::from_le_bytes([rest[16], rest[17]])).clamp(20, rest.len());
        let name = rest[19..size].split(|byte| *byte == 0).next().unwrap_or_default();
        if name != b"." && name != b".." && !name.iter().all(u8::is_ascii_digit) {
            return Ok(());
        }
        rest = &rest[size..];
    }
    Err(libc::ENOENT)
}

/// Makes a child, which ends at once.
fn child(number: libc::c_long, arguments: &[libc::c_long]) -> Outcome {
    let pid = call(number, arguments)?;
    if pid == 0 {
        // SAFETY: only ends the process.
        unsafe { libc::_exit(0) };
    }
    Ok(())
}

/// Becomes user or group 0, where it is not that already.
fn change_user(number: libc::c_long) -> Outcome {
    // SAFETY: take nothing and cannot fail.
    let id = unsafe { if number == libc::SYS_setresuid { libc::getuid() } else { libc::getgid() } };
    attempt(number, &[0, 0, 0])?;
    if id == 0 { Err(libc::EALREADY) } else { Ok(()) }
}

/// Reads or writes a word of another process's memory, where programs that are not position-independent begin.
fn vector(number: libc::c_long) -> Outcome {
    let word = 0u64;
    let (local, remote) = ([at(&word), 8], [0x40_0000, 8]);
    attempt_until(number, &[other(), at(&local), 1, at(&remote), 1, 0], &[libc::EFAULT])
}

fn map(protection: libc::c_int) -> Outcome {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as libc::c_long;
    let address = call(libc::SYS_mmap, &[0, 4096, protection.into(), flags, -1, 0])?;
    let _ = call(libc::SYS_munmap, &[address, 4096]);
    Ok(())
}

fn protect(number: libc::c_long, more: &[libc::c_long]) -> Outcome {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as libc::c_long;
    let writable = (libc::PROT_READ | libc::PROT_WRITE).into();
    let address = call(libc::SYS_mmap, &[0, 4096, writable, flags, -1, 0])?;
    let executable = (libc::PROT_READ | libc::PROT_EXEC).into();
    let outcome = attempt(number, &[&[address, 4096, executable], more].concat());
    let _ = call(libc::SYS_munmap, &[address, 4096]);
    outcome
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> Outcome {
    attempt_descriptor(
        libc::SYS_socket,
        &[family.into(), (kind | libc::SOCK_CLOEXEC).into(), protocol.into()],
    )
}

fn unix_address(path: &[u8]) -> libc::sockaddr_un {
    let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = *from as libc::c_char;
    }
    address
}

fn connect(address: &libc::sockaddr_un, length: usize) -> Outcome {
    let kind = (libc::SOCK_STREAM | libc::SOCK_CLOEXEC).into();
    let socket = call(libc::SYS_socket, &[libc::AF_UNIX.into(), kind, 0])?;
    let outcome = attempt(libc::SYS_connect, &[socket, at(address), length as libc::c_long]);
    close(socket);
    outcome
}

fn connect_abstract() -> Outcome {
    let name = [b"\0", ABSTRACT_SOCKET].concat();
    connect(&unix_address(&name), 2 + name.len())
}

fn connect_path(path: &CStr) -> Outcome {
    connect(&unix_address(path.to_bytes()), size_of::<libc::sockaddr_un>())
}

/// Sends a descriptor to whoever is at the other end of a socket that is open.
fn send_descriptor() -> Outcome {
    let byte = [0u8; 1];
    let data = libc::iovec { iov_base: at(&byte) as *mut libc::c_void, iov_len: 1 };
    // A header of 16 bytes, level SOL_SOCKET, type SCM_RIGHTS, and one descriptor: this process's own null.
    let control: [u64; 3] = [20, (libc::SCM_RIGHTS as u64) << 32 | libc::SOL_SOCKET as u64, 0];
    // SAFETY: all zero is a message without an address.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw const data as *mut libc::iovec;
    message.msg_iovlen = 1;
    message.msg_control = at(&control) as *mut libc::c_void;
    message.msg_controllen = size_of_val(&control);
    with_any_descriptor(|socket| {
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT).into();
        attempt(libc::SYS_sendmsg, &[socket, at(&message), flags])
    })
}

fn ioctl(request: u32) -> Outcome {
    let argument = [0u64; 32];
    with_any_descriptor(|descriptor| attempt(libc::SYS_ioctl, &[descriptor, request.into(), at(&argument)]))
}

fn fcntl(command: libc::c_int, argument: libc::c_int) -> Outcome {
    attempt(libc::SYS_fcntl, &[crate::REPORT.into(), command.into(), argument.into()])
}
