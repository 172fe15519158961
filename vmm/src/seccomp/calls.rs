//! The system calls of each thread.

use stockade_sys::seccomp::{Rule, any, fails, one_of, own_process, when, without};

use super::Thread;

/// A part of a thread's list.
pub type List = [Rule];

/// A thread's list; if a call has two entries, the first counts.
pub const fn of(thread: Thread) -> &'static [&'static List] {
    match thread {
        Thread::Main => &[MAIN, BASE, THREADS, DEVICE, SOCKETS, TAPS, DISKS],
        Thread::Saver => &[SAVER, MAIN, BASE, THREADS, DEVICE, SOCKETS, TAPS, DISKS],
        Thread::Vcpu => &[VCPU, BASE],
        Thread::Devices => &[INTERRUPT, BASE, DEVICE, GROWTH],
        Thread::Fs => &[SHARED_MEMORY, INTERRUPT, BASE, DEVICE],
        Thread::Vsock => &[VSOCK, BASE, DEVICE, SOCKETS],
        Thread::Net => &[NET, BASE, DEVICE, TAPS],
        Thread::Blk => &[INTERRUPT, BASE, DEVICE, DISKS],
        Thread::Files => &[FILES, BASE, THREADS, DEVICE, SOCKETS],
        Thread::FileWorker => &[FILE_WORKER, BASE, THREADS],
    }
}

/// Calls to report that the guest has grown.
const GROWTH: &List = &[any(libc::SYS_sendto)];

const SHARED_MEMORY: &List = &[when(libc::SYS_madvise, &[one_of(2, GIVE_BACK_SHARED)])];

const EXECUTABLE: u32 = libc::PROT_EXEC as u32;

/// Kinds of madvise(2) for memory that the allocator gives back, that threads leave of their stacks, and that the guest
/// has no use for.
const GIVE_BACK: &[u32] = &[libc::MADV_DONTNEED as u32, libc::MADV_FREE as u32];

/// Kinds of madvise(2) for shared memory, too.
const GIVE_BACK_SHARED: &[u32] =
    &[libc::MADV_DONTNEED as u32, libc::MADV_FREE as u32, libc::MADV_REMOVE as u32];

/// Calls for memory that holds no code, locks, random numbers (hash tables have seeds), signals, and the end of a
/// thread and of the process.
const BASE: &List = &[
    any(libc::SYS_brk),
    // For hosts without a clock in the vDSO, and for the CPU times of threads.
    any(libc::SYS_clock_gettime),
    any(libc::SYS_close),
    any(libc::SYS_exit),
    any(libc::SYS_exit_group),
    // A debug build looks at a descriptor's flags before it closes one.
    when(libc::SYS_fcntl, &[one_of(1, &[libc::F_GETFD as u32])]),
    any(libc::SYS_futex),
    any(libc::SYS_getpid),
    any(libc::SYS_getrandom),
    any(libc::SYS_gettid),
    when(libc::SYS_madvise, &[one_of(2, GIVE_BACK)]),
    when(libc::SYS_mmap, &[without(2, EXECUTABLE)]),
    when(libc::SYS_mprotect, &[without(2, EXECUTABLE)]),
    any(libc::SYS_mremap),
    any(libc::SYS_munmap),
    any(libc::SYS_read),
    any(libc::SYS_restart_syscall),
    any(libc::SYS_rt_sigaction),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_rt_sigreturn),
    any(libc::SYS_sched_yield),
    any(libc::SYS_sigaltstack),
    when(libc::SYS_tgkill, &[own_process(0)]),
    any(libc::SYS_write),
];

/// The flags with which the C library starts a thread; a process would share less.
const NEW_THREAD: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u32;

/// Calls to start threads.
const THREADS: &List = &[
    // Its arguments are in memory, where no filter sees them; the C library then uses the other.
    fails(libc::SYS_clone3, libc::ENOSYS),
    when(libc::SYS_clone, &[one_of(0, &[NEW_THREAD])]),
    when(libc::SYS_prctl, &[one_of(0, &[libc::PR_SET_NAME as u32])]),
    any(libc::SYS_rseq),
    any(libc::SYS_sched_getaffinity),
    any(libc::SYS_set_robust_list),
];

/// Calls to wait for the guest.
const DEVICE: &List = &[any(libc::SYS_epoll_ctl), any(libc::SYS_epoll_pwait), any(libc::SYS_epoll_wait)];

const KVM_RUN: u32 = 0xae80;
const KVM_GET_REGS: u32 = 0x8090_ae81;
const KVM_IRQ_LINE: u32 = 0x4008_ae61;
const KVM_IOEVENTFD: u32 = 0x4040_ae79;
const KVM_SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
const KVM_GET_SUPPORTED_CPUID: u32 = 0xc008_ae05;
const KVM_CREATE_VCPU: u32 = 0xae41;
const KVM_SET_CPUID2: u32 = 0x4008_ae90;
const KVM_SET_MSRS: u32 = 0x4008_ae89;
const KVM_GET_LAPIC: u32 = 0x8400_ae8e;
const KVM_SET_LAPIC: u32 = 0x4400_ae8f;
const KVM_GET_MSR_INDEX_LIST: u32 = 0xc004_ae02;
const KVM_GET_IRQCHIP: u32 = 0xc208_ae62;
const KVM_GET_CLOCK: u32 = 0x8030_ae7c;
const KVM_GET_MP_STATE: u32 = 0x8004_ae98;
const KVM_GET_SREGS: u32 = 0x8138_ae83;
const KVM_GET_XSAVE: u32 = 0x9000_aea4;
const KVM_GET_XCRS: u32 = 0x8188_aea6;
const KVM_GET_DEBUGREGS: u32 = 0x8080_aea1;
const KVM_GET_VCPU_EVENTS: u32 = 0x8040_ae9f;
const KVM_GET_DEVICE_ATTR: u32 = 0x4018_aee2;
const KVM_GET_MSRS: u32 = 0xc008_ae88;
// Request numbers have 32 bits.
const FIONBIO: u32 = libc::FIONBIO as u32;
const TUNSETQUEUE: u32 = libc::TUNSETQUEUE as u32;

/// Calls to interrupt the guest.
const INTERRUPT: &List = &[when(libc::SYS_ioctl, &[one_of(1, &[KVM_IRQ_LINE])])];

/// Calls to run the guest.
const VCPU: &List = &[when(libc::SYS_ioctl, &[one_of(1, &[KVM_RUN, KVM_GET_REGS, KVM_IRQ_LINE])])];

/// Calls for existing sockets; none can be made, and no descriptor can be sent.
const SOCKETS: &List = &[
    any(libc::SYS_accept4),
    any(libc::SYS_getsockopt),
    any(libc::SYS_readv),
    any(libc::SYS_recvfrom),
    any(libc::SYS_sendto),
    any(libc::SYS_setsockopt),
    any(libc::SYS_shutdown),
    any(libc::SYS_writev),
];

const VSOCK: &List = &[when(libc::SYS_ioctl, &[one_of(1, &[FIONBIO, KVM_IRQ_LINE])])];

/// Calls for existing taps.
const TAPS: &List = &[any(libc::SYS_readv), any(libc::SYS_writev)];

const NET: &List = &[when(libc::SYS_ioctl, &[one_of(1, &[TUNSETQUEUE, KVM_IRQ_LINE])])];

/// Calls for existing files and block devices.
const DISKS: &List =
    &[any(libc::SYS_fallocate), any(libc::SYS_fdatasync), any(libc::SYS_preadv), any(libc::SYS_pwritev)];

/// The requests of ioctl(2) of the main thread, to KVM, sockets, taps and disks.
const OF_MAIN: &[u32] = &[
    FIONBIO,
    KVM_IRQ_LINE,
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
    // The main thread must be allowed everything that these threads may do.
    KVM_RUN,
    KVM_GET_REGS,
];

/// Further requests if it saves the machine.
const OF_SAVER: &[u32] = &[
    FIONBIO,
    KVM_IRQ_LINE,
    KVM_IOEVENTFD,
    KVM_SET_USER_MEMORY_REGION,
    KVM_GET_SUPPORTED_CPUID,
    KVM_SET_MSRS,
    KVM_GET_LAPIC,
    KVM_RUN,
    KVM_GET_REGS,
    KVM_GET_MSR_INDEX_LIST,
    KVM_GET_IRQCHIP,
    KVM_GET_CLOCK,
    KVM_GET_MP_STATE,
    KVM_GET_SREGS,
    KVM_GET_XSAVE,
    KVM_GET_XCRS,
    KVM_GET_DEBUGREGS,
    KVM_GET_VCPU_EVENTS,
    KVM_GET_MSRS,
    KVM_GET_DEVICE_ATTR,
];

/// Calls to save a machine to existing files. The machine has no disk or tap of a container.
const SAVER: &List = &[
    when(libc::SYS_ioctl, &[one_of(1, OF_SAVER)]),
    any(libc::SYS_clock_nanosleep),
    any(libc::SYS_ftruncate),
    any(libc::SYS_nanosleep),
    any(libc::SYS_pwrite64),
];

/// Calls to restrict other threads, to connect devices, and to report what the VMM uses.
const MAIN: &List = &[
    any(libc::SYS_epoll_create1),
    any(libc::SYS_eventfd2),
    when(
        libc::SYS_fcntl,
        &[one_of(
            1,
            &[
                libc::F_GETFD as u32,
                libc::F_GETFL as u32,
                // O_NONBLOCK of a tap.
                libc::F_SETFL as u32,
                libc::F_DUPFD_CLOEXEC as u32,
            ],
        )],
    ),
    when(libc::SYS_ioctl, &[one_of(1, OF_MAIN)]),
    any(libc::SYS_lseek),
    when(
        libc::SYS_madvise,
        &[one_of(
            2,
            &[
                libc::MADV_DONTNEED as u32,
                libc::MADV_FREE as u32,
                libc::MADV_REMOVE as u32,
                libc::MADV_HUGEPAGE as u32,
            ],
        )],
    ),
    // What has come with a request, and its own statistics.
    any(libc::SYS_recvmsg),
    any(libc::SYS_pread64),
    when(libc::SYS_seccomp, &[one_of(0, &[libc::SECCOMP_SET_MODE_FILTER])]),
    any(libc::SYS_statx),
    // To find out how the file server has ended.
    when(libc::SYS_waitid, &[one_of(0, &[libc::P_PIDFD])]),
];

/// Calls to take trees and to close them.
const FILES: &List = &[
    any(libc::SYS_epoll_create1),
    when(libc::SYS_fcntl, &[one_of(1, &[libc::F_GETFD as u32, libc::F_DUPFD_CLOEXEC as u32])]),
    any(libc::SYS_fstatfs),
    when(libc::SYS_ioctl, &[one_of(1, &[FIONBIO])]),
    any(libc::SYS_recvmsg),
    any(libc::SYS_statx),
];

/// Commands of fcntl(2): copying a directory's descriptor, and locks of a file that the guest has open.
const OF_FILES: &[u32] =
    &[libc::F_GETFD as u32, libc::F_DUPFD_CLOEXEC as u32, libc::F_OFD_GETLK as u32, libc::F_OFD_SETLK as u32];

/// Calls on behalf of the guest, beneath existing descriptors.
const FILE_WORKER: &List = &[
    any(libc::SYS_capget),
    any(libc::SYS_capset),
    any(libc::SYS_copy_file_range),
    any(libc::SYS_fallocate),
    any(libc::SYS_fchdir),
    any(libc::SYS_fchmodat),
    any(libc::SYS_fchownat),
    when(libc::SYS_fcntl, &[one_of(1, OF_FILES)]),
    any(libc::SYS_fdatasync),
    any(libc::SYS_flock),
    any(libc::SYS_fstatfs),
    any(libc::SYS_fsync),
    any(libc::SYS_ftruncate),
    any(libc::SYS_getdents64),
    any(libc::SYS_getxattr),
    any(libc::SYS_linkat),
    any(libc::SYS_listxattr),
    any(libc::SYS_lseek),
    any(libc::SYS_mkdirat),
    any(libc::SYS_mknodat),
    any(libc::SYS_openat),
    any(libc::SYS_preadv),
    any(libc::SYS_pwritev2),
    any(libc::SYS_readlinkat),
    any(libc::SYS_removexattr),
    // For renameat2(2) without flags the C library makes the older call.
    any(libc::SYS_renameat),
    any(libc::SYS_renameat2),
    any(libc::SYS_setfsgid),
    any(libc::SYS_setfsuid),
    any(libc::SYS_setxattr),
    any(libc::SYS_statx),
    any(libc::SYS_symlinkat),
    any(libc::SYS_syncfs),
    any(libc::SYS_truncate),
    any(libc::SYS_umask),
    any(libc::SYS_unlinkat),
    // A umask and a working directory for each thread.
    when(libc::SYS_unshare, &[one_of(0, &[libc::CLONE_FS as u32])]),
    any(libc::SYS_utimensat),
];
