//! The system calls of each thread.

use super::{Thread, program::Check};

use Check::{Any, OneOf, OwnProcess, Refuse, Without};

/// A part of a thread's list.
pub type List = [(libc::c_long, Check)];

/// A thread's list; of two entries for one call the first counts.
pub fn of(thread: Thread) -> &'static [&'static List] {
    match thread {
        Thread::Main => &[MAIN, BASE, THREADS, DEVICE, SOCKETS, TAPS, DISKS],
        Thread::Vcpu => &[VCPU, BASE],
        Thread::Rng => &[BASE, DEVICE],
        Thread::Balloon => &[BASE, DEVICE],
        // It reports that the guest has grown.
        Thread::Mem => &[BASE, DEVICE, &[(libc::SYS_sendto, Any)]],
        Thread::Fs => &[&[(libc::SYS_madvise, OneOf(2, GIVE_BACK_SHARED))], BASE, DEVICE],
        Thread::Vsock => &[VSOCK, BASE, DEVICE, SOCKETS],
        Thread::Net => &[NET, BASE, DEVICE, TAPS],
        Thread::Blk => &[BASE, DEVICE, DISKS],
        Thread::Files => &[FILES, BASE, THREADS, DEVICE, SOCKETS],
        Thread::FileWorker => &[FILE_WORKER, BASE, THREADS],
    }
}

const EXECUTABLE: u32 = libc::PROT_EXEC as u32;

/// What the allocator gives back, threads leave of their stacks, and the guest has no use for.
const GIVE_BACK: &[u32] = &[libc::MADV_DONTNEED as u32, libc::MADV_FREE as u32];

/// With memory that is shared.
const GIVE_BACK_SHARED: &[u32] =
    &[libc::MADV_DONTNEED as u32, libc::MADV_FREE as u32, libc::MADV_REMOVE as u32];

/// Memory that holds no code, locks, random numbers (hash tables have seeds), signals, the end of a thread and of the process.
const BASE: &List = &[
    (libc::SYS_brk, Any),
    // Where the host has no clock in its vDSO, and the times of threads.
    (libc::SYS_clock_gettime, Any),
    (libc::SYS_close, Any),
    (libc::SYS_exit, Any),
    (libc::SYS_exit_group, Any),
    // A debug build looks at a descriptor's flags before it closes one.
    (libc::SYS_fcntl, OneOf(1, &[libc::F_GETFD as u32])),
    (libc::SYS_futex, Any),
    (libc::SYS_getpid, Any),
    (libc::SYS_getrandom, Any),
    (libc::SYS_gettid, Any),
    (libc::SYS_madvise, OneOf(2, GIVE_BACK)),
    (libc::SYS_mmap, Without(2, EXECUTABLE)),
    (libc::SYS_mprotect, Without(2, EXECUTABLE)),
    (libc::SYS_mremap, Any),
    (libc::SYS_munmap, Any),
    (libc::SYS_read, Any),
    (libc::SYS_restart_syscall, Any),
    (libc::SYS_rt_sigaction, Any),
    (libc::SYS_rt_sigprocmask, Any),
    (libc::SYS_rt_sigreturn, Any),
    (libc::SYS_sched_yield, Any),
    (libc::SYS_sigaltstack, Any),
    (libc::SYS_tgkill, OwnProcess(0)),
    (libc::SYS_write, Any),
];

/// What the C library asks for when it starts a thread; a process would share less.
const NEW_THREAD: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u32;

/// To start threads.
const THREADS: &List = &[
    // Its arguments are in memory, where no filter sees them; the C library then uses the other.
    (libc::SYS_clone3, Refuse(libc::ENOSYS as u16)),
    (libc::SYS_clone, OneOf(0, &[NEW_THREAD])),
    (libc::SYS_prctl, OneOf(0, &[libc::PR_SET_NAME as u32])),
    (libc::SYS_rseq, Any),
    (libc::SYS_sched_getaffinity, Any),
    (libc::SYS_set_robust_list, Any),
];

/// To wait for the guest.
const DEVICE: &List =
    &[(libc::SYS_epoll_ctl, Any), (libc::SYS_epoll_pwait, Any), (libc::SYS_epoll_wait, Any)];

const KVM_RUN: u32 = 0xae80;
const KVM_GET_REGS: u32 = 0x8090_ae81;
const KVM_IRQFD: u32 = 0x4020_ae76;
const KVM_IOEVENTFD: u32 = 0x4040_ae79;
const KVM_SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
const KVM_GET_SUPPORTED_CPUID: u32 = 0xc008_ae05;
const KVM_CREATE_VCPU: u32 = 0xae41;
const KVM_SET_CPUID2: u32 = 0x4008_ae90;
const KVM_SET_MSRS: u32 = 0x4008_ae89;
const KVM_GET_LAPIC: u32 = 0x8400_ae8e;
const KVM_SET_LAPIC: u32 = 0x4400_ae8f;
// Request numbers have 32 bits.
const FIONBIO: u32 = libc::FIONBIO as u32;
const TUNSETQUEUE: u32 = libc::TUNSETQUEUE as u32;

/// To run the guest.
const VCPU: &List = &[(libc::SYS_ioctl, OneOf(1, &[KVM_RUN, KVM_GET_REGS]))];

/// Sockets that are there; none can be made, and no descriptor can be sent.
const SOCKETS: &List = &[
    (libc::SYS_accept4, Any),
    (libc::SYS_getsockopt, Any),
    (libc::SYS_readv, Any),
    (libc::SYS_recvfrom, Any),
    (libc::SYS_sendto, Any),
    (libc::SYS_setsockopt, Any),
    (libc::SYS_shutdown, Any),
    (libc::SYS_writev, Any),
];

const VSOCK: &List = &[(libc::SYS_ioctl, OneOf(1, &[FIONBIO]))];

/// Taps that are there.
const TAPS: &List = &[(libc::SYS_readv, Any), (libc::SYS_writev, Any)];

const NET: &List = &[(libc::SYS_ioctl, OneOf(1, &[TUNSETQUEUE]))];

/// Files and block devices that are there.
const DISKS: &List = &[
    (libc::SYS_fallocate, Any),
    (libc::SYS_fdatasync, Any),
    (libc::SYS_preadv, Any),
    (libc::SYS_pwritev, Any),
];

/// To restrict other threads, to wire devices up, and to tell what all of it costs.
const MAIN: &List = &[
    (libc::SYS_epoll_create1, Any),
    (libc::SYS_eventfd2, Any),
    (
        libc::SYS_fcntl,
        OneOf(
            1,
            &[
                libc::F_GETFD as u32,
                libc::F_GETFL as u32,
                // O_NONBLOCK of a tap.
                libc::F_SETFL as u32,
                libc::F_DUPFD_CLOEXEC as u32,
            ],
        ),
    ),
    (
        libc::SYS_ioctl,
        OneOf(
            1,
            &[
                FIONBIO,
                KVM_IRQFD,
                KVM_IOEVENTFD,
                libc::BLKSSZGET as u32,
                libc::TUNGETIFF as u32,
                libc::TUNSETVNETHDRSZ as u32,
                libc::TUNSETOFFLOAD as u32,
                TUNSETQUEUE,
                KVM_SET_USER_MEMORY_REGION,
                // To add vCPUs.
                KVM_GET_SUPPORTED_CPUID,
                KVM_CREATE_VCPU,
                KVM_SET_CPUID2,
                KVM_SET_MSRS,
                KVM_GET_LAPIC,
                KVM_SET_LAPIC,
                // What their threads may, this one must be allowed too.
                KVM_RUN,
                KVM_GET_REGS,
            ],
        ),
    ),
    (libc::SYS_lseek, Any),
    (libc::SYS_madvise, OneOf(2, GIVE_BACK_SHARED)),
    // What has come with a request, and its own stats.
    (libc::SYS_recvmsg, Any),
    (libc::SYS_pread64, Any),
    (libc::SYS_seccomp, OneOf(0, &[libc::SECCOMP_SET_MODE_FILTER])),
    (libc::SYS_statx, Any),
    // How the file server has ended.
    (libc::SYS_waitid, OneOf(0, &[libc::P_PIDFD])),
];

/// To take trees and to close them.
const FILES: &List = &[
    (libc::SYS_epoll_create1, Any),
    (libc::SYS_fcntl, OneOf(1, &[libc::F_GETFD as u32, libc::F_DUPFD_CLOEXEC as u32])),
    (libc::SYS_fstatfs, Any),
    (libc::SYS_ioctl, OneOf(1, &[FIONBIO])),
    (libc::SYS_recvmsg, Any),
    (libc::SYS_statx, Any),
];

/// Copies of a directory's descriptor, and locks of a file that the guest has open.
const OF_FILES: &[u32] =
    &[libc::F_GETFD as u32, libc::F_DUPFD_CLOEXEC as u32, libc::F_OFD_GETLK as u32, libc::F_OFD_SETLK as u32];

/// What is done on behalf of the guest, beneath descriptors that are there.
const FILE_WORKER: &List = &[
    (libc::SYS_capget, Any),
    (libc::SYS_capset, Any),
    (libc::SYS_copy_file_range, Any),
    (libc::SYS_fallocate, Any),
    (libc::SYS_fchdir, Any),
    (libc::SYS_fchmodat, Any),
    (libc::SYS_fchownat, Any),
    (libc::SYS_fcntl, OneOf(1, OF_FILES)),
    (libc::SYS_fdatasync, Any),
    (libc::SYS_flock, Any),
    (libc::SYS_fstatfs, Any),
    (libc::SYS_fsync, Any),
    (libc::SYS_ftruncate, Any),
    (libc::SYS_getdents64, Any),
    (libc::SYS_getxattr, Any),
    (libc::SYS_linkat, Any),
    (libc::SYS_listxattr, Any),
    (libc::SYS_lseek, Any),
    (libc::SYS_mkdirat, Any),
    (libc::SYS_mknodat, Any),
    (libc::SYS_openat, Any),
    (libc::SYS_preadv, Any),
    (libc::SYS_pwritev2, Any),
    (libc::SYS_readlinkat, Any),
    (libc::SYS_removexattr, Any),
    // For renameat2(2) without flags the C library makes the older call.
    (libc::SYS_renameat, Any),
    (libc::SYS_renameat2, Any),
    (libc::SYS_setfsgid, Any),
    (libc::SYS_setfsuid, Any),
    (libc::SYS_setxattr, Any),
    (libc::SYS_statx, Any),
    (libc::SYS_symlinkat, Any),
    (libc::SYS_syncfs, Any),
    (libc::SYS_truncate, Any),
    (libc::SYS_umask, Any),
    (libc::SYS_unlinkat, Any),
    // A umask and a working directory for each thread.
    (libc::SYS_unshare, OneOf(0, &[libc::CLONE_FS as u32])),
    (libc::SYS_utimensat, Any),
];
