//! A BPF program that looks a system call up in a sorted list by bisection.
//!
//! The kernel runs a new filter once for every system call there is, to know those that it always allows; a list that
//! is compared one by one costs a thread more instructions than all else that it does to start.

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_KILL_PROCESS, SYS_ioctl,
};
use seccompiler::{BpfProgram, sock_filter};

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const SECOND_ARGUMENT: u32 = 24;

/// AUDIT_ARCH_X86_64: 64-bit, little-endian, machine 62.
const X86_64: u32 = 0xc000_003e;

/// The filter that allows `calls` (sorted), but ioctl(2) only with `requests`, and kills the process otherwise.
pub fn build(calls: &[u32], requests: &[u32]) -> BpfProgram {
    let mut program = vec![load(ARCHITECTURE), equals(X86_64, 1, 0), KILL, load(NUMBER)];
    program.extend(search(calls, requests));
    program
}

/// Allows the calls of this part of the list.
fn search(calls: &[u32], requests: &[u32]) -> BpfProgram {
    match calls {
        [] => vec![KILL],
        [call] => found(*call, requests),
        _ => {
            let (left, right) = calls.split_at(calls.len() / 2);
            let left = search(left, requests);
            // Distances have eight bits: three instructions a call, so that is good for 170 calls.
            let mut program = vec![jump(BPF_JGE, right[0], left.len() as u8, 0)];
            program.extend(left);
            program.extend(search(right, requests));
            program
        }
    }
}

fn found(call: u32, requests: &[u32]) -> BpfProgram {
    if i64::from(call) != SYS_ioctl {
        return vec![equals(call, 0, 1), ALLOW, KILL];
    }
    // Four instructions for two requests.
    let mut program = vec![equals(call, 0, 1 + 2 * requests.len() as u8), load(SECOND_ARGUMENT)];
    for request in requests {
        program.extend([equals(*request, 0, 1), ALLOW]);
    }
    program.push(KILL);
    program
}

const ALLOW: sock_filter = instruction(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
const KILL: sock_filter = instruction(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS);

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

fn equals(value: u32, if_true: u8, if_false: u8) -> sock_filter {
    jump(BPF_JEQ, value, if_true, if_false)
}

fn jump(comparison: u32, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    instruction(BPF_JMP | comparison | BPF_K, if_true, if_false, value)
}

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    // BPF codes have 16 bits.
    sock_filter { code: code as u16, jt, jf, k }
}
