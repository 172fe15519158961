use seccompiler::BpfProgram;

use super::{Thread, calls, program, requests};

const DEVICES: [Thread; 6] = [Thread::Rng, Thread::Mem, Thread::Fs, Thread::Vsock, Thread::Net, Thread::Blk];
const X86_64: u32 = 0xc000_003e;

fn all() -> impl Iterator<Item = Thread> {
    DEVICES.into_iter().chain([Thread::Main, Thread::Vcpu])
}

/// Runs the few instructions that the programs are made of.
fn allows(program: &BpfProgram, architecture: u32, call: u32, second_argument: u32) -> bool {
    let (mut at, mut value) = (0, 0);
    loop {
        let instruction = &program[at];
        let jump = |taken: bool| 1 + usize::from(if taken { instruction.jt } else { instruction.jf });
        at += match instruction.code {
            0x20 => {
                value = match instruction.k {
                    0 => call,
                    4 => architecture,
                    24 => second_argument,
                    offset => panic!("load of {offset}"),
                };
                1
            }
            0x15 => jump(value == instruction.k),
            0x35 => jump(value >= instruction.k),
            0x06 => return instruction.k == libc::SECCOMP_RET_ALLOW,
            code => panic!("instruction {code:#x}"),
        };
    }
}

#[test]
fn what_is_listed_is_allowed_and_nothing_else() {
    for thread in all() {
        let listed = calls(thread);
        let program = program::build(&listed, requests(thread));
        for call in (0..1000).chain([0x4000_0000, u32::MAX]) {
            let expected = listed.contains(&call) && call != libc::SYS_ioctl as u32;
            assert_eq!(allows(&program, X86_64, call, 0), expected, "{thread:?} {call}");
        }
    }
}

#[test]
fn other_architectures_have_no_calls() {
    let program = program::build(&calls(Thread::Main), &[]);
    assert!(!allows(&program, 0x4000_0003, libc::SYS_read as u32, 0));
}

#[test]
fn a_vcpu_may_run_and_not_reconfigure() {
    let program = program::build(&calls(Thread::Vcpu), requests(Thread::Vcpu));
    let ioctl = libc::SYS_ioctl as u32;
    let (run, set_memory, get_regs) = (0xae80, 0x4020_ae46, 0x8090_ae81);
    assert!(allows(&program, X86_64, ioctl, run));
    assert!(allows(&program, X86_64, ioctl, get_regs));
    assert!(!allows(&program, X86_64, ioctl, set_memory));
    assert!(!allows(&program, X86_64, libc::SYS_openat as u32, 0));
    assert!(!allows(&program, X86_64, libc::SYS_clone3 as u32, 0));
}

#[test]
fn only_the_main_thread_wires_devices_up() {
    let ioctl = libc::SYS_ioctl as u32;
    let (irqfd, ioeventfd, set_memory) = (0x4020_ae76, 0x4040_ae79, 0x4020_ae46);
    for thread in all() {
        let program = program::build(&calls(thread), requests(thread));
        let main = thread == Thread::Main;
        assert_eq!(allows(&program, X86_64, ioctl, irqfd), main, "{thread:?}");
        assert_eq!(allows(&program, X86_64, ioctl, ioeventfd), main, "{thread:?}");
        assert_eq!(allows(&program, X86_64, ioctl, libc::TUNSETOFFLOAD as u32), main, "{thread:?}");
        assert_eq!(allows(&program, X86_64, ioctl, set_memory), main, "{thread:?}");
        // A tap is never made.
        assert!(!allows(&program, X86_64, ioctl, libc::TUNSETIFF as u32), "{thread:?}");
    }
}

#[test]
fn no_thread_can_mount_trace_or_execute() {
    let forbidden = [
        libc::SYS_mount,
        libc::SYS_move_mount,
        libc::SYS_setns,
        libc::SYS_ptrace,
        libc::SYS_execve,
        libc::SYS_socket,
    ];
    for thread in all() {
        assert!(forbidden.iter().all(|call| !calls(thread).contains(&(*call as u32))), "{thread:?}");
    }
}

#[test]
fn the_main_thread_may_all_that_its_device_threads_may() {
    let (main, main_requests) = (calls(Thread::Main), requests(Thread::Main));
    for thread in DEVICES {
        assert!(calls(thread).iter().all(|call| main.contains(call)), "{thread:?}");
        let requests = requests(thread);
        assert!(requests.iter().all(|request| main_requests.contains(request)), "{thread:?}");
    }
}
