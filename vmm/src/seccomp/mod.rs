//! What system calls each thread may still make.
//!
//! | thread | is reached by | may |
//! |---|---|---|
//! | vCPU | the guest's every exit | run the guest, signal eventfds |
//! | rng, balloon, mem, fs, vsock, net, blk | the guest's queues | what the device does |
//! | main | the runtime | start and stop the other threads, whose filters add to its own; wire devices up |
//!
//! Anything else kills the process: either it is taken over, or this list is wrong and a test must find out.

mod program;

use seccompiler::apply_filter;

/// A thread cannot be restricted.
#[derive(Debug, thiserror::Error)]
#[error("seccomp: {0}")]
pub struct Error(#[from] seccompiler::Error);

/// Whose filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// The main thread.
    Main,
    /// A virtual CPU.
    Vcpu,
    /// The entropy device.
    Rng,
    /// The balloon device.
    Balloon,
    /// The memory device.
    Mem,
    /// The file server.
    Fs,
    /// The vsock device.
    Vsock,
    /// A network device.
    Net,
    /// A block device.
    Blk,
}

/// Restricts the calling thread, and those that it starts, for good.
///
/// # Errors
/// The kernel has no seccomp filters.
pub fn restrict(thread: Thread) -> Result<(), Error> {
    Ok(apply_filter(&program::build(&calls(thread), requests(thread)))?)
}

/// The thread's system calls, sorted.
fn calls(thread: Thread) -> Vec<u32> {
    let lists: &[&[libc::c_long]] = match thread {
        Thread::Main => &[BASE, DEVICE, MAIN, FILES, SOCKETS],
        Thread::Vcpu => &[BASE, VCPU],
        Thread::Rng | Thread::Balloon => &[BASE, DEVICE],
        // It reports that the guest has grown.
        Thread::Mem => &[BASE, DEVICE, &[libc::SYS_sendto]],
        Thread::Fs => &[BASE, DEVICE, FILES],
        Thread::Vsock => &[BASE, DEVICE, SOCKETS],
        Thread::Net => &[BASE, DEVICE, TAPS],
        Thread::Blk => &[BASE, DEVICE, DISKS],
    };
    // System call numbers are small.
    let mut calls: Vec<_> = lists.iter().flat_map(|list| list.iter()).map(|call| *call as u32).collect();
    calls.sort_unstable();
    calls.dedup();
    calls
}

/// The requests of ioctl(2) that the thread may make.
fn requests(thread: Thread) -> &'static [u32] {
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
    match thread {
        Thread::Vcpu => &[KVM_RUN, KVM_GET_REGS],
        Thread::Main => &[
            FIONBIO,
            KVM_IRQFD,
            KVM_IOEVENTFD,
            libc::BLKSSZGET as u32,
            libc::TUNGETIFF as u32,
            libc::TUNSETVNETHDRSZ as u32,
            libc::TUNSETOFFLOAD as u32,
            libc::TUNSETQUEUE as u32,
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
        Thread::Vsock => &[FIONBIO],
        Thread::Net => &[libc::TUNSETQUEUE as u32],
        Thread::Rng | Thread::Balloon | Thread::Mem | Thread::Fs | Thread::Blk => &[],
    }
}

/// Memory, locks, random numbers (hash tables have seeds), signals, the end of a thread and of the process.
const BASE: &[libc::c_long] = &[
    libc::SYS_brk,
    // Where the host has no clock in its vDSO.
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Descriptors' flags; a debug build looks at them before it closes one.
    libc::SYS_fcntl,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_write,
];

/// To wait for the guest.
const DEVICE: &[libc::c_long] = &[libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_wait];

/// To run the guest; see [`requests`].
const VCPU: &[libc::c_long] = &[libc::SYS_ioctl];

/// What the file server does on behalf of the guest, beneath descriptors that it has.
const FILES: &[libc::c_long] = &[
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_getxattr,
    libc::SYS_linkat,
    libc::SYS_listxattr,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_removexattr,
    libc::SYS_renameat2,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setxattr,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_writev,
];

/// Sockets that are there; none can be made.
const SOCKETS: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_ioctl,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_writev,
];

/// Taps that are there.
const TAPS: &[libc::c_long] = &[libc::SYS_ioctl, libc::SYS_readv, libc::SYS_writev];

/// Files and block devices that are there.
const DISKS: &[libc::c_long] =
    &[libc::SYS_fallocate, libc::SYS_fdatasync, libc::SYS_preadv, libc::SYS_pwritev];

/// To start threads and to restrict them.
const MAIN: &[libc::c_long] = &[
    libc::SYS_clone3,
    libc::SYS_clone,
    libc::SYS_dup,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_prctl,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_seccomp,
    libc::SYS_set_robust_list,
];

#[cfg(test)]
#[path = "seccomp_test.rs"]
mod tests;
