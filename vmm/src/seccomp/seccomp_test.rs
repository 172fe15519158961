use std::collections::BTreeSet;

use libc::sock_filter;
use stockade_sys::seccomp::{MISMATCH, verdict};

use super::{Thread, calls};

/// Those whose threads the main thread starts, and so restricts further.
const DEVICES: [Thread; 5] = [Thread::Devices, Thread::Fs, Thread::Vsock, Thread::Net, Thread::Blk];
const X86_64: u32 = 0xc000_003e;

fn of_vmm() -> impl Iterator<Item = Thread> {
    DEVICES.into_iter().chain([Thread::Main, Thread::Vcpu])
}

fn all() -> impl Iterator<Item = Thread> {
    of_vmm().chain([Thread::Files, Thread::FileWorker])
}

fn program(thread: Thread) -> Vec<sock_filter> {
    super::program(thread).instructions()
}

fn allows(program: &[sock_filter], call: libc::c_long, arguments: [u32; 6]) -> bool {
    verdict(program, X86_64, call as u32, arguments.map(u64::from)) == libc::SECCOMP_RET_ALLOW
}

/// The calls of a thread's list.
fn listed(thread: Thread) -> BTreeSet<u32> {
    calls::of(thread).iter().flat_map(|list| list.iter()).map(|rule| rule.call()).collect()
}

fn ioctl(request: u32) -> [u32; 6] {
    [0, request, 0, 0, 0, 0]
}

#[test]
fn what_is_not_listed_is_a_mismatch() {
    for thread in all() {
        let (listed, program) = (listed(thread), program(thread));
        for call in (0..1000).chain([0x4000_0000, u32::MAX]).filter(|call| !listed.contains(call)) {
            assert_eq!(verdict(&program, X86_64, call, [0xffff_0000; 6]), MISMATCH, "{thread:?} {call}");
        }
    }
}

#[test]
fn a_vcpu_may_run_and_not_reconfigure() {
    let program = program(Thread::Vcpu);
    let (run, set_memory, get_regs) = (0xae80, 0x4020_ae46, 0x8090_ae81);
    assert!(allows(&program, libc::SYS_ioctl, ioctl(run)));
    assert!(allows(&program, libc::SYS_ioctl, ioctl(get_regs)));
    assert!(!allows(&program, libc::SYS_ioctl, ioctl(set_memory)));
    assert!(!allows(&program, libc::SYS_openat, [0; 6]));
    assert!(!allows(&program, libc::SYS_clone, [0x3d_0f00, 0, 0, 0, 0, 0]));
}

#[test]
fn only_the_main_thread_wires_devices_up() {
    let (irqfd, ioeventfd, set_memory) = (0x4020_ae76, 0x4040_ae79, 0x4020_ae46);
    let irq_line = 0x4008_ae61;
    for thread in all() {
        let program = program(thread);
        let main = thread == Thread::Main;
        let interrupts = of_vmm().any(|of_vmm| of_vmm == thread);
        assert_eq!(allows(&program, libc::SYS_ioctl, ioctl(irq_line)), interrupts, "{thread:?}");
        assert!(!allows(&program, libc::SYS_ioctl, ioctl(irqfd)), "{thread:?}");
        for request in [ioeventfd, set_memory, libc::TUNSETOFFLOAD as u32] {
            assert_eq!(allows(&program, libc::SYS_ioctl, ioctl(request)), main, "{thread:?}");
        }
        // A tap is never made, nor a VM.
        for request in [libc::TUNSETIFF as u32, 0xae01] {
            assert!(!allows(&program, libc::SYS_ioctl, ioctl(request)), "{thread:?}");
        }
    }
}

#[test]
fn no_thread_can_mount_trace_or_execute_or_make_a_socket() {
    let forbidden = [
        libc::SYS_mount,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_setns,
        libc::SYS_ptrace,
        libc::SYS_process_vm_writev,
        libc::SYS_execve,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_sendmsg,
        libc::SYS_kill,
        libc::SYS_pidfd_send_signal,
        libc::SYS_bpf,
        libc::SYS_io_uring_setup,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_open_by_handle_at,
        libc::SYS_open,
        libc::SYS_memfd_create,
        libc::SYS_setuid,
        libc::SYS_setresuid,
    ];
    for thread in all() {
        let program = program(thread);
        for call in forbidden {
            assert!(!allows(&program, call, [0; 6]), "{thread:?} {call}");
        }
        let clone3 = verdict(&program, X86_64, libc::SYS_clone3 as u32, [0; 6]);
        assert_ne!(clone3, libc::SECCOMP_RET_ALLOW, "{thread:?}");
    }
}

#[test]
fn only_the_file_server_opens_files() {
    for thread in of_vmm().chain([Thread::Files]) {
        for call in [libc::SYS_openat, libc::SYS_openat2, libc::SYS_unlinkat, libc::SYS_mknodat] {
            assert!(!allows(&program(thread), call, [0; 6]), "{thread:?} {call}");
        }
    }
    let worker = program(Thread::FileWorker);
    assert!(allows(&worker, libc::SYS_openat, [0; 6]));
    assert!(allows(&worker, libc::SYS_unshare, [libc::CLONE_FS as u32, 0, 0, 0, 0, 0]));
    assert!(!allows(&worker, libc::SYS_unshare, [libc::CLONE_NEWUSER as u32, 0, 0, 0, 0, 0]));
    assert!(!allows(&worker, libc::SYS_recvmsg, [0; 6]), "no descriptor comes from the guest");
}

#[test]
fn no_thread_maps_code_or_makes_a_process_or_signals_another() {
    let executable = libc::PROT_EXEC as u32;
    let signal = libc::SIGUSR1 as u32;
    for thread in all() {
        let program = program(thread);
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            assert!(allows(&program, call, [0, 0, 3, 0, 0, 0]), "{thread:?}");
            assert!(!allows(&program, call, [0, 0, 3 | executable, 0, 0, 0]), "{thread:?}");
        }
        assert!(allows(&program, libc::SYS_tgkill, [std::process::id(), 7, signal, 0, 0, 0]), "{thread:?}");
        assert!(
            !allows(&program, libc::SYS_tgkill, [1 + std::process::id(), 7, signal, 0, 0, 0]),
            "{thread:?}"
        );
        for flags in [libc::SIGCHLD, libc::CLONE_VM | libc::CLONE_VFORK, libc::CLONE_NEWUSER] {
            assert!(!allows(&program, libc::SYS_clone, [flags as u32, 0, 0, 0, 0, 0]), "{thread:?}");
        }
        let named = allows(&program, libc::SYS_prctl, [libc::PR_SET_NAME as u32, 0, 0, 0, 0, 0]);
        assert!(named || !allows(&program, libc::SYS_clone, [0x3d_0f00, 0, 0, 0, 0, 0]));
        for option in [libc::PR_SET_DUMPABLE, libc::PR_SET_MM, libc::PR_SET_SECUREBITS, libc::PR_SET_PTRACER]
        {
            assert!(!allows(&program, libc::SYS_prctl, [option as u32, 0, 0, 0, 0, 0]), "{thread:?}");
        }
        for command in [libc::F_OFD_SETLKW, libc::F_SETOWN, libc::F_ADD_SEALS] {
            assert!(!allows(&program, libc::SYS_fcntl, [0, command as u32, 0, 0, 0, 0]), "{thread:?}");
        }
    }
}

#[test]
fn the_main_thread_may_all_that_its_device_threads_may() {
    let main = program(Thread::Main);
    for thread in DEVICES.into_iter().chain([Thread::Vcpu]) {
        for rule in calls::of(thread).iter().flat_map(|list| list.iter()) {
            for arguments in rule.allowed_arguments() {
                if verdict(&program(thread), X86_64, rule.call(), arguments) == libc::SECCOMP_RET_ALLOW {
                    let answer = verdict(&main, X86_64, rule.call(), arguments);
                    assert_eq!(answer, libc::SECCOMP_RET_ALLOW, "{thread:?} {} {arguments:x?}", rule.call());
                }
            }
        }
    }
}
