//! A BPF program that looks a system call up in a sorted list by bisection, and then at one argument where that decides.
//!
//! The kernel runs a new filter once for every system call there is, to know those that it always allows; a list that
//! is compared one by one costs a thread more instructions than all else that it does to start.

use libc::{
    BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
};

/// One instruction, as the kernel takes it.
pub type Instruction = libc::sock_filter;

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// AUDIT_ARCH_X86_64: 64-bit, little-endian, machine 62.
const X86_64: u32 = 0xc000_003e;

/// One system call.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its number.
    pub call: u32,
    /// When it is allowed.
    pub check: Check,
}

/// When a call is allowed. Arguments count from 0, and of each the lower half is looked at, which is all that the kernel
/// looks at in those that are checked.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    /// Always.
    Any,
    /// When the argument is one of these.
    OneOf(u8, &'static [u32]),
    /// When the argument is this process's ID.
    OwnProcess(u8),
    /// When the argument has none of these bits.
    Without(u8, u32),
    /// Never, but it fails with this error number: the caller has another way.
    Refuse(u16),
}

/// The filter that allows what the sorted rules allow, and does `mismatch` otherwise.
pub fn build(rules: &[Rule], mismatch: u32) -> Vec<Instruction> {
    let reject = instruction(BPF_RET | BPF_K, 0, 0, mismatch);
    let mut program = vec![load(ARCHITECTURE), equals(X86_64, 1, 0), reject, load(NUMBER)];
    program.extend(search(rules, reject));
    program
}

/// Decides about the calls of this part of the list.
fn search(rules: &[Rule], reject: Instruction) -> Vec<Instruction> {
    match rules {
        [] => vec![reject],
        [rule] => found(*rule, reject),
        _ => {
            let (left, right) = rules.split_at(rules.len() / 2);
            let first = right[0].call;
            let left = search(left, reject);
            let mut program = match u8::try_from(left.len()) {
                Ok(distance) => vec![jump(BPF_JGE, first, distance, 0)],
                // Farther than a comparison can jump.
                Err(_) => {
                    vec![jump(BPF_JGE, first, 0, 1), instruction(BPF_JMP | BPF_JA, 0, 0, left.len() as u32)]
                }
            };
            program.extend(left);
            program.extend(search(right, reject));
            program
        }
    }
}

fn found(Rule { call, check }: Rule, reject: Instruction) -> Vec<Instruction> {
    let decision = match check {
        Check::Any => vec![ALLOW],
        Check::Refuse(errno) => {
            vec![instruction(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | u32::from(errno))]
        }
        Check::OneOf(argument, values) => one_of(argument, values, reject),
        Check::OwnProcess(argument) => one_of(argument, &[std::process::id()], reject),
        Check::Without(argument, bits) => {
            vec![load_argument(argument), jump(BPF_JSET, bits, 0, 1), reject, ALLOW]
        }
    };
    // Lists of values are short.
    let mut program = vec![equals(call, 1, 0), reject];
    program.extend(decision);
    program
}

fn one_of(argument: u8, values: &[u32], reject: Instruction) -> Vec<Instruction> {
    let mut program = vec![load_argument(argument)];
    for value in values {
        program.extend([equals(*value, 0, 1), ALLOW]);
    }
    program.push(reject);
    program
}

const ALLOW: Instruction = instruction(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);

/// The lower half: the machine is little-endian.
fn load_argument(argument: u8) -> Instruction {
    load(ARGUMENTS + 8 * u32::from(argument))
}

fn load(offset: u32) -> Instruction {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

fn equals(value: u32, if_true: u8, if_false: u8) -> Instruction {
    jump(BPF_JEQ, value, if_true, if_false)
}

fn jump(comparison: u32, value: u32, if_true: u8, if_false: u8) -> Instruction {
    instruction(BPF_JMP | comparison | BPF_K, if_true, if_false, value)
}

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
    // BPF codes have 16 bits.
    Instruction { code: code as u16, jt, jf, k }
}
