//! Other processes, and this one's rights over them.

use super::Attempt;
use crate::call::{Outcome, at, attempt, attempt_descriptor, attempt_until, call, text, with_any_descriptor};

pub const PROCESSES: &[Attempt] = &[
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

pub const RIGHTS: &[Attempt] = &[
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
