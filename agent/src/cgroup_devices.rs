//! Device rules as a BPF program on the cgroup: cgroup v2 has no files for them.
//!
//! The kernel asks with a set of accesses (read, write, mknod) to one device. The last rule that names the
//! device and an access decides on that access; what no rule decides is denied. So the program walks the
//! rules from the last to the first and keeps the accesses that are still undecided:
//!
//! ```text
//!  r2 = type   r3 = accesses undecided   r4 = major   r5 = minor
//!  for each rule, last first:   unless it names the device: next rule
//!      allow:  r3 &= !accesses of the rule;  if r3 == 0: return 1
//!      deny:   if r3 & accesses of the rule: return 0
//!  return 0
//! ```

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use stockade_protocol::container::{DeviceKind, DeviceRule};

use crate::error::{Context, Result};

// linux/bpf.h
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// The container's own programs, in cgroups below, may only narrow this one.
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_DEVCG_ACC_MKNOD: u32 = 1;
const BPF_DEVCG_ACC_READ: u32 = 2;
const BPF_DEVCG_ACC_WRITE: u32 = 4;
const BPF_DEVCG_DEV_BLOCK: u32 = 1;
const BPF_DEVCG_DEV_CHAR: u32 = 2;

// Operation codes: class | size or operation | mode or source.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_UNLESS_EQUAL_32: u8 = 0x56;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const UNDECIDED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// One BPF instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high four.
    registers: u8,
    offset: i16,
    immediate: i32,
}

fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate: immediate as i32 }
}

/// The program for these rules.
fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }
    // access_type = accesses << 16 | type
    let mut program = vec![
        op(LOAD_WORD, KIND, CONTEXT, 0, 0),
        op(MOVE, UNDECIDED, KIND, 0, 0),
        op(SHIFT_RIGHT, UNDECIDED, 0, 0, 16),
        op(AND, KIND, 0, 0, 0xffff),
        op(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        op(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    // What the first rules deny is denied anyway.
    let first = rules.iter().position(|rule| rule.allow).unwrap_or(rules.len());
    for rule in rules[first..].iter().rev() {
        append_rule(&mut program, rule);
    }
    program.extend(return_value(0));
    program
}

fn return_value(value: u32) -> [Instruction; 2] {
    [op(MOVE_IMMEDIATE, RESULT, 0, 0, value), op(EXIT, 0, 0, 0, 0)]
}

fn append_rule(program: &mut Vec<Instruction>, rule: &DeviceRule) {
    let kind = match rule.kind {
        None => None,
        Some(DeviceKind::Char) => Some(BPF_DEVCG_DEV_CHAR),
        Some(DeviceKind::Block) => Some(BPF_DEVCG_DEV_BLOCK),
        // The kernel does not ask about named pipes.
        // Every disk has got its numbers by now.
        Some(DeviceKind::Fifo | DeviceKind::Disk) => return,
    };
    let accesses = [
        (rule.read, BPF_DEVCG_ACC_READ),
        (rule.write, BPF_DEVCG_ACC_WRITE),
        (rule.mknod, BPF_DEVCG_ACC_MKNOD),
    ];
    let accesses = accesses.into_iter().filter(|(named, _)| *named).fold(0, |all, (_, bit)| all | bit);
    if accesses == 0 {
        return;
    }
    let mut verdict = Vec::new();
    if rule.allow {
        verdict.push(op(AND, UNDECIDED, 0, 0, !accesses));
        verdict.push(op(JUMP_NOT_EQUAL, UNDECIDED, 0, 2, 0));
        verdict.extend(return_value(1));
    } else {
        verdict.push(op(MOVE, SCRATCH, UNDECIDED, 0, 0));
        verdict.push(op(AND, SCRATCH, 0, 0, accesses));
        verdict.push(op(JUMP_EQUAL, SCRATCH, 0, 2, 0));
        verdict.extend(return_value(0));
    }
    let conditions: Vec<(u8, u32)> = [(KIND, kind), (MAJOR, rule.major), (MINOR, rule.minor)]
        .into_iter()
        .filter_map(|(register, value)| value.map(|value| (register, value)))
        .collect();
    for (index, (register, value)) in conditions.iter().enumerate() {
        let skipped = conditions.len() - index - 1 + verdict.len();
        program.push(op(JUMP_UNLESS_EQUAL_32, *register, 0, skipped as i16, *value));
    }
    program.extend(verdict);
}

/// `union bpf_attr`, as BPF_PROG_LOAD reads it.
#[repr(C)]
struct LoadAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// `union bpf_attr`, as BPF_PROG_ATTACH reads it.
#[repr(C)]
struct AttachAttributes {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Puts the rules in force for the cgroup whose directory this is.
pub fn attach(cgroup: impl AsFd, rules: &[DeviceRule]) -> Result<()> {
    let program = compile(rules);
    load(&program)
        .and_then(|program| {
            let attributes = AttachAttributes {
                target_fd: cgroup.as_fd().as_raw_fd() as u32,
                attach_bpf_fd: program.as_raw_fd() as u32,
                attach_type: BPF_CGROUP_DEVICE,
                attach_flags: BPF_F_ALLOW_MULTI,
            };
            // SAFETY: the attributes are plain numbers that BPF_PROG_ATTACH only reads.
            unsafe { bpf(BPF_PROG_ATTACH, &attributes) }.map(drop)
        })
        .or_spec(|| format!("apply {} device rules", rules.len()))
}

fn load(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let attributes = LoadAttributes {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    // SAFETY: `insns` points to `insn_cnt` instructions and `license` to a NUL-terminated string; both
    // outlive the call, which only reads them.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &attributes) }?;
    // SAFETY: BPF_PROG_LOAD has just made this descriptor (close-on-exec), and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// # Safety
/// `attributes` must be what `command` reads, and its pointers must be valid.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> Result<libc::c_long, Errno> {
    // SAFETY: the size is that of the attributes; the rest is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    Errno::result(result)
}

#[cfg(test)]
#[path = "cgroup_devices_test.rs"]
mod tests;
