//! What the kernel does for whoever may ask: code in memory, the machine's state, and the requests of devices.

use super::Attempt;
use crate::call::{Outcome, at, attempt, attempt_descriptor, attempt_until, call, text, with_any_descriptor};

/// Of fcntl.h.
const F_SETSIG: libc::c_int = 10;
const DN_CREATE: libc::c_int = 4;

pub const MEMORY: &[Attempt] = &[
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

pub const KERNEL: &[Attempt] = &[
    ("load a BPF program", || {
        let attributes = [0u64; 16];
        attempt_until(libc::SYS_bpf, &[0, at(&attributes), 128], &[libc::EINVAL])
    }),
    ("make a ring of io_uring", || {
        let parameters = [0u64; 15];
        attempt_descriptor(libc::SYS_io_uring_setup, &[4, at(&parameters)])
    }),
    // The VMM has a disabled one.
    ("enable a ring of io_uring", || {
        with_any_descriptor(|file| attempt(libc::SYS_io_uring_register, &[file, 12, 0, 0]))
    }),
    ("enter a ring of io_uring", || {
        with_any_descriptor(|file| {
            attempt_until(libc::SYS_io_uring_enter, &[file, 1, 0, 0, 0, 0], &[libc::EBADFD])
        })
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

pub const DESCRIPTORS: &[Attempt] = &[
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
    // Without O_APPEND reports would be written over each other.
    ("have descriptors send signals", || fcntl(libc::F_SETFL, libc::O_ASYNC | libc::O_APPEND)),
];

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

fn ioctl(request: u32) -> Outcome {
    let argument = [0u64; 32];
    with_any_descriptor(|descriptor| attempt(libc::SYS_ioctl, &[descriptor, request.into(), at(&argument)]))
}

fn fcntl(command: libc::c_int, argument: libc::c_int) -> Outcome {
    attempt(libc::SYS_fcntl, &[crate::REPORT.into(), command.into(), argument.into()])
}
