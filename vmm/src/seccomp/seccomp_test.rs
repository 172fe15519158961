use super::{
    MISMATCH, Thread,
    program::{self, Check, Instruction},
    rules,
};

/// Those whose threads the main thread starts, and so restricts further.
const DEVICES: [Thread; 7] =
    [Thread::Rng, Thread::Balloon, Thread::Mem, Thread::Fs, Thread::Vsock, Thread::Net, Thread::Blk];
const X86_64: u32 = 0xc000_003e;

fn of_vmm() -> impl Iterator<Item = Thread> {
    DEVICES.into_iter().chain([Thread::Main, Thread::Vcpu])
}

fn all() -> impl Iterator<Item = Thread> {
    of_vmm().chain([Thread::Files, Thread::FileWorker])
}

fn program(thread: Thread) -> Vec<Instruction> {
    program::build(&rules(thread), MISMATCH)
}

/// Runs the few instructions that the programs are made of.
fn verdict(program: &[Instruction], architecture: u32, call: u32, arguments: [u32; 6]) -> u32 {
    let (mut at, mut value) = (0, 0);
    loop {
        let instruction = &program[at];
        let jump = |taken: bool| 1 + usize::from(if taken { instruction.jt } else { instruction.jf });
        at += match instruction.code {
            0x20 => {
                value = match instruction.k {
                    0 => call,
                    4 => architecture,
                    offset @ 16.. if offset % 8 == 0 => arguments[(offset as usize - 16) / 8],
                    offset => panic!("load of {offset}"),
                };
                1
            }
            0x05 => 1 + instruction.k as usize,
            0x15 => jump(value == instruction.k),
            0x35 => jump(value >= instruction.k),
            0x45 => jump(value & instruction.k != 0),
            0x06 => return instruction.k,
            code => panic!("instruction {code:#x}"),
        };
    }
}

fn allows(program: &[Instruction], call: libc::c_long, arguments: [u32; 6]) -> bool {
    verdict(program, X86_64, call as u32, arguments) == libc::SECCOMP_RET_ALLOW
}

fn ioctl(request: u32) -> [u32; 6] {
    [0, request, 0, 0, 0, 0]
}

#[test]
fn what_is_listed_is_allowed_and_nothing_else() {
    for thread in all() {
        let (rules, program) = (rules(thread), program(thread));
        for call in (0..1000).chain([0x4000_0000, u32::MAX]) {
            let rule = rules.iter().find(|rule| rule.call == call);
            let expected = match rule.map(|rule| rule.check) {
                None => MISMATCH,
                Some(Check::Any | Check::Without(..)) => libc::SECCOMP_RET_ALLOW,
                Some(Check::Refuse(errno)) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
                // An argument that is in none of the lists.
                Some(Check::OneOf(..) | Check::OwnProcess(_)) => MISMATCH,
            };
            assert_eq!(
                verdict(&program, X86_64, call, [0xffff_0000; 6]),
                match rule.map(|rule| rule.check) {
                    Some(Check::Without(_, bits)) if 0xffff_0000 & bits != 0 => MISMATCH,
                    _ => expected,
                },
                "{thread:?} {call}"
            );
        }
    }
}

#[test]
fn other_architectures_have_no_calls() {
    let program = program(Thread::Main);
    assert_eq!(verdict(&program, 0x4000_0003, libc::SYS_read as u32, [0; 6]), MISMATCH);
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
    for thread in all() {
        let program = program(thread);
        let main = thread == Thread::Main;
        for request in [irqfd, ioeventfd, set_memory, libc::TUNSETOFFLOAD as u32] {
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
        for rule in rules(thread) {
            let arguments = match rule.check {
                Check::OneOf(argument, values) => {
                    values.iter().map(|value| (argument, *value)).collect::<Vec<_>>()
                }
                Check::OwnProcess(argument) => vec![(argument, std::process::id())],
                _ => vec![(0, 0)],
            };
            for (argument, value) in arguments {
                let mut all = [0; 6];
                all[usize::from(argument)] = value;
                assert!(allows(&main, rule.call.into(), all), "{thread:?} {} {value:#x}", rule.call);
            }
        }
    }
}

#[test]
fn a_program_is_short_enough_and_long_jumps_arrive() {
    for thread in all() {
        assert!(program(thread).len() < 4096, "{thread:?}");
    }
    let rules: Vec<_> = (0..400).map(|call| program::Rule { call, check: Check::Any }).collect();
    let program = program::build(&rules, MISMATCH);
    for call in 0..500 {
        let expected = if call < 400 { libc::SECCOMP_RET_ALLOW } else { MISMATCH };
        assert_eq!(verdict(&program, X86_64, call, [0; 6]), expected, "{call}");
    }
}
