//! Device rules as a BPF program on the cgroup: cgroup v2 has no files for such rules.
//!
//! The kernel asks with a set of accesses (read, write, mknod) to one device. The last rule that names the
//! device and an access decides on that access; an access that no rule decides is denied. So the program walks the
//! rules from the last to the first and keeps the accesses that are still undecided:
//!
//! ```text
//!  r2 = type   r3 = accesses undecided   r4 = major   r5 = minor
//!  for each rule, last first:   unless it names the device: next rule
//!      allow:  r3 &= !accesses of the rule;  if r3 == 0: return 1
//!      deny:   if r3 & accesses of the rule: return 0
//!  return 0
//! ```

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::OnceLock,
};

use stockade_protocol::container::{DeviceKind, DeviceRule};
use stockade_sys::bpf::{
    self, Instruction, Kind,
    code::{
        AND_IMMEDIATE, EXIT, JUMP_EQUAL, JUMP_NOT_EQUAL, JUMP_NOT_EQUAL_32, LOAD_32, MOVE, MOVE_IMMEDIATE,
        SHIFT_RIGHT_IMMEDIATE,
    },
};

use crate::error::{Context, Result};

// linux/bpf.h
const BPF_DEVCG_ACC_MKNOD: u32 = 1;
const BPF_DEVCG_ACC_READ: u32 = 2;
const BPF_DEVCG_ACC_WRITE: u32 = 4;
const BPF_DEVCG_DEV_BLOCK: u32 = 1;
const BPF_DEVCG_DEV_CHAR: u32 = 2;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const UNDECIDED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> Instruction {
    bpf::op(code, destination, source, offset, immediate as i32)
}

/// The program for these rules.
fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }
    // access_type = accesses << 16 | type
    let mut program = vec![
        op(LOAD_32, KIND, CONTEXT, 0, 0),
        op(MOVE, UNDECIDED, KIND, 0, 0),
        op(SHIFT_RIGHT_IMMEDIATE, UNDECIDED, 0, 0, 16),
        op(AND_IMMEDIATE, KIND, 0, 0, 0xffff),
        op(LOAD_32, MAJOR, CONTEXT, 4, 0),
        op(LOAD_32, MINOR, CONTEXT, 8, 0),
    ];
    // What a later rule decides in any case is passed over: engines list the default devices, too.
    let decides =
        |(index, rule): &(usize, &DeviceRule)| !rules[index + 1..].iter().any(|later| later.covers(rule));
    let deciding = rules.iter().enumerate().filter(decides).map(|(_, rule)| rule);
    // What the first rules deny is denied anyway.
    let deciding: Vec<_> = deciding.skip_while(|rule| !rule.allow).collect();
    for rule in deciding.into_iter().rev() {
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
        // Every disk has its numbers by now.
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
        verdict.push(op(AND_IMMEDIATE, UNDECIDED, 0, 0, !accesses));
        verdict.push(op(JUMP_NOT_EQUAL, UNDECIDED, 0, 2, 0));
        verdict.extend(return_value(1));
    } else {
        verdict.push(op(MOVE, SCRATCH, UNDECIDED, 0, 0));
        verdict.push(op(AND_IMMEDIATE, SCRATCH, 0, 0, accesses));
        verdict.push(op(JUMP_EQUAL, SCRATCH, 0, 2, 0));
        verdict.extend(return_value(0));
    }
    let conditions: Vec<(u8, u32)> = [(KIND, kind), (MAJOR, rule.major), (MINOR, rule.minor)]
        .into_iter()
        .filter_map(|(register, value)| value.map(|value| (register, value)))
        .collect();
    for (index, (register, value)) in conditions.iter().enumerate() {
        let skipped = conditions.len() - index - 1 + verdict.len();
        program.push(op(JUMP_NOT_EQUAL_32, *register, 0, skipped as i16, *value));
    }
    program.extend(verdict);
}

/// The program of most containers, which a template has already: for the kernel to check it takes longer than anything else in
/// the making of a container.
static PREPARED: OnceLock<(Vec<Instruction>, OwnedFd)> = OnceLock::new();

/// Loads that program.
pub fn prepare() -> Result<()> {
    let program = compile(&DeviceRule::defaults());
    let loaded = bpf::load(Kind::CGROUP_DEVICE, &program)
        .map_err(io::Error::from)
        .or_internal(|| "load the program for the default devices".to_owned())?;
    PREPARED.get_or_init(|| (program, loaded));
    Ok(())
}

/// Attaches the rules to the cgroup with this directory.
pub fn attach(cgroup: impl AsFd, rules: &[DeviceRule]) -> Result<()> {
    let program = compile(rules);
    let attach =
        |loaded: &OwnedFd| bpf::attach_to_cgroup(Kind::CGROUP_DEVICE, loaded.as_fd(), cgroup.as_fd());
    match PREPARED.get().filter(|(prepared, _)| *prepared == program) {
        Some((_, loaded)) => attach(loaded),
        None => bpf::load(Kind::CGROUP_DEVICE, &program).and_then(|loaded| attach(&loaded)),
    }
    .or_spec(|| format!("apply {} device rules", rules.len()))
}

#[cfg(test)]
#[path = "cgroup_devices_test.rs"]
mod tests;
