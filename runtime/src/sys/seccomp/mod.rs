//! The system calls that a process of the runtime may make if it outlives its command and a guest talks to it.
//!
//! | process | is reached by | may |
//! |---|---|---|
//! | relay of an exec or of a member | its streams and its process connection | read and write what it has open, receive connections from its creator |
//! | the same, which has an heir: its container's relay or its sandbox's | that | also pass descriptors on to its heir, by the socket of one number that no other descriptor can get |
//! | relay of a sandbox, or with sockets of the host | that, and what VMM and agent answer | also start threads and connect to UNIX sockets: those that it has open, and the container's own |
//! | watcher of a network namespace | what VMM and agent answer, and what containers ask the resolver | open the files that its root has, ask the kernel by netlink, make taps and pass them to the VMM; start threads and connect to the resolver |
//!
//! No relay opens a file, or passes a descriptor on to anybody else. None of them executes anything: there is no execve(2), no executable memory
//! that was not there before, no ptrace(2), no mount, no namespace, no signal to another. Anything that is not listed kills the process: either it is taken over, or the list is
//! wrong and a test must find out. [`restrict`] is the one place where a filter is applied.

use nix::errno::Errno;
use stockade_sys::seccomp::{Program, Rule, any, fails, one_of, when, without};

use crate::relay::held_streams;

/// The process that a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A relay that only copies.
    Relay,
    /// A relay that connects to the VMM, to the agent or to sockets of the host.
    ConnectingRelay,
    /// As [`Kind::Relay`], with an heir to which it leaves streams when it ends.
    RelayWithHeir,
    /// As [`Kind::ConnectingRelay`], with an heir.
    ConnectingRelayWithHeir,
    /// The process that keeps a VM's network in step.
    NetworkWatch,
}

/// Restricts the calling process, which has one thread and no_new_privs, and all threads that it starts, for good.
///
/// # Errors
/// The kernel has no seccomp filters.
pub fn restrict(kind: Kind) -> Result<(), Errno> {
    program(kind).install()?;
    #[cfg(feature = "takeover")]
    stockade_takeover::attempt_everything(&format!("runtime {kind:?}"));
    Ok(())
}

fn program(kind: Kind) -> &'static Program {
    static RELAY: Program = Program::new(&[MEMORY, STREAMS, RELAY_ONLY]);
    static CONNECTING_RELAY: Program =
        Program::new(&[MEMORY, STREAMS, RELAY_ONLY, THREADS, NO_FILES, CONNECTIONS]);
    static RELAY_WITH_HEIR: Program = Program::new(&[MEMORY, STREAMS, RELAY_ONLY, HEIR]);
    static CONNECTING_RELAY_WITH_HEIR: Program =
        Program::new(&[MEMORY, STREAMS, RELAY_ONLY, THREADS, NO_FILES, CONNECTIONS, HEIR]);
    static NETWORK_WATCH: Program = Program::new(&[MEMORY, STREAMS, THREADS, NETWORK_WATCH_ONLY]);
    match kind {
        Kind::Relay => &RELAY,
        Kind::ConnectingRelay => &CONNECTING_RELAY,
        Kind::RelayWithHeir => &RELAY_WITH_HEIR,
        Kind::ConnectingRelayWithHeir => &CONNECTING_RELAY_WITH_HEIR,
        Kind::NetworkWatch => &NETWORK_WATCH,
    }
}

const PROT_EXEC: u32 = libc::PROT_EXEC as u32;

/// Calls for memory, which is never executable, locks, clocks, and exit.
const MEMORY: &[Rule] = &[
    any(libc::SYS_brk),
    // Needed if the host has no clock in its vDSO.
    any(libc::SYS_clock_gettime),
    any(libc::SYS_close),
    any(libc::SYS_exit_group),
    any(libc::SYS_futex),
    // Hash tables have seeds.
    any(libc::SYS_getrandom),
    any(libc::SYS_madvise),
    when(libc::SYS_mmap, &[without(2, PROT_EXEC)]),
    when(libc::SYS_mprotect, &[without(2, PROT_EXEC)]),
    any(libc::SYS_mremap),
    any(libc::SYS_munmap),
    any(libc::SYS_restart_syscall),
    any(libc::SYS_rt_sigprocmask),
];

/// Calls for streams that are open.
const STREAMS: &[Rule] = &[
    // A debug build looks at a descriptor's flags before it closes it.
    when(
        libc::SYS_fcntl,
        &[one_of(1, &[libc::F_GETFL as u32, libc::F_GETFD as u32, libc::F_DUPFD_CLOEXEC as u32])],
    ),
    any(libc::SYS_fstat),
    any(libc::SYS_poll),
    any(libc::SYS_read),
    any(libc::SYS_recvfrom),
    any(libc::SYS_recvmsg),
    any(libc::SYS_sendto),
    any(libc::SYS_shutdown),
    any(libc::SYS_splice),
    any(libc::SYS_write),
];

/// Calls for a terminal's size and settings, and for reaping orphans.
const RELAY_ONLY: &[Rule] = &[
    when(
        libc::SYS_ioctl,
        &[one_of(
            1,
            &[libc::FIONBIO as u32, libc::TIOCGWINSZ as u32, libc::TCSETS as u32, libc::TCGETS as u32],
        )],
    ),
    any(libc::SYS_wait4),
];

/// The call that sends streams to another relay ([`crate::relay::held_streams`]).
const HEIR: &[Rule] = &[when(libc::SYS_sendmsg, &[one_of(0, &[held_streams::HEIR as u32])])];

/// The flags that the C library passes to clone(2) for a thread.
const THREAD: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u32;

/// Calls for threads of this process, and of no other.
const THREADS: &[Rule] = &[
    any(libc::SYS_clock_nanosleep),
    when(libc::SYS_clone, &[one_of(0, &[THREAD])]),
    // Its flags are in memory, which no filter sees: the C library uses clone(2) then.
    fails(libc::SYS_clone3, libc::ENOSYS),
    any(libc::SYS_exit),
    any(libc::SYS_gettid),
    when(libc::SYS_prctl, &[one_of(0, &[libc::PR_SET_NAME as u32])]),
    // The C library sets handlers for its own two signals before the first thread.
    when(libc::SYS_rt_sigaction, &[one_of(0, &[32, 33])]),
    any(libc::SYS_rseq),
    any(libc::SYS_sched_getaffinity),
    any(libc::SYS_sched_yield),
    any(libc::SYS_set_robust_list),
    any(libc::SYS_sigaltstack),
];

/// Files are refused without killing the process: the C library's allocator reads the overcommit setting when a
/// thread's memory shrinks, and can go on without it.
const NO_FILES: &[Rule] = &[fails(libc::SYS_openat, libc::EACCES)];

/// Calls for connections to UNIX sockets, and for accepting connections on existing listeners.
const CONNECTIONS: &[Rule] = &[
    any(libc::SYS_accept4),
    any(libc::SYS_connect),
    any(libc::SYS_getsockname),
    any(libc::SYS_pread64),
    when(
        libc::SYS_setsockopt,
        &[
            one_of(1, &[libc::SOL_SOCKET as u32]),
            one_of(2, &[libc::SO_RCVTIMEO as u32, libc::SO_SNDTIMEO as u32, libc::SO_LINGER as u32]),
        ],
    ),
    when(
        libc::SYS_socket,
        &[one_of(0, &[libc::AF_UNIX as u32]), one_of(1, &[(libc::SOCK_STREAM | libc::SOCK_CLOEXEC) as u32])],
    ),
];

/// Calls for the files of one container's state, the only ones in its root; for rtnetlink; for requests to VMM and
/// agent, and taps for the VMM; for connections to the resolver, whose port Landlock checks. Raw sockets of IPv4 need a
/// capability that the process does not have.
const NETWORK_WATCH_ONLY: &[Rule] = &[
    any(libc::SYS_bind),
    any(libc::SYS_connect),
    when(libc::SYS_ioctl, &[one_of(1, &[TUNSETIFF, libc::SIOCGIFINDEX as u32, libc::FIONBIO as u32])]),
    any(libc::SYS_lseek),
    any(libc::SYS_openat),
    any(libc::SYS_rename),
    any(libc::SYS_sendmsg),
    when(
        libc::SYS_setsockopt,
        &[
            one_of(1, &[libc::SOL_SOCKET as u32]),
            one_of(2, &[libc::SO_RCVTIMEO as u32, libc::SO_SNDTIMEO as u32]),
        ],
    ),
    when(
        libc::SYS_socket,
        &[
            one_of(0, &[libc::AF_UNIX as u32, libc::AF_NETLINK as u32, libc::AF_INET as u32]),
            one_of(
                1,
                &[
                    (libc::SOCK_STREAM | libc::SOCK_CLOEXEC) as u32,
                    (libc::SOCK_RAW | libc::SOCK_CLOEXEC) as u32,
                ],
            ),
            one_of(2, &[libc::NETLINK_ROUTE as u32]),
        ],
    ),
    any(libc::SYS_statx),
    any(libc::SYS_unlink),
];

/// `_IOW('T', 202, int)` of linux/if_tun.h.
const TUNSETIFF: u32 = 0x4004_54ca;

#[cfg(test)]
#[path = "seccomp_test.rs"]
mod tests;
