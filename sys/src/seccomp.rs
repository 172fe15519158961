//! Seccomp programs that are built when their crate is compiled: a thread that applies one only hands it to the kernel.
//!
//! The kernel runs a new filter once for every system call that there is, and translates it into machine code: a list that is
//! compared one by one would cost more instructions than all else that a thread does to start. So a system call is looked up
//! in a tree, and all that are not allowed end at one instruction.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, sock_filter,
};
use nix::errno::Errno;

use crate::done;

/// What the kernel does with a call that no rule allows.
#[cfg(not(feature = "takeover"))]
pub const MISMATCH: u32 = libc::SECCOMP_RET_KILL_PROCESS;
/// What the kernel does with a call that no rule allows, in the build that tries all calls.
#[cfg(feature = "takeover")]
pub const MISMATCH: u32 = stockade_takeover::MISMATCH;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Bytes of an argument. Only the lower half, which comes first, is compared: the kernel ignores the upper half of the
/// arguments that are checked.
const ARGUMENT: u32 = 8;

/// AUDIT_ARCH_X86_64: 64-bit, little-endian, machine 62.
const X86_64: u32 = 0xc000_003e;

/// Instructions before the tree.
const PRELUDE: usize = 3;

/// About the number of system calls that there are.
const NUMBERS: u32 = 472;

/// Room for a program, in instructions, and for its rules.
const MAX_LENGTH: usize = 260;
const MAX_RULES: usize = 96;

/// What an argument must be. Arguments count from 0.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// The argument's index.
    argument: u32,
    /// The bits that matter.
    mask: u32,
    /// The values that these bits may have. An empty list stands for this process's ID, which is filled in when the
    /// program is installed.
    values: &'static [u32],
}

/// The argument is one of these values; the list is not empty.
pub const fn one_of(argument: u32, values: &'static [u32]) -> Condition {
    assert!(!values.is_empty());
    Condition { argument, mask: u32::MAX, values }
}

/// The argument has none of these bits.
pub const fn without(argument: u32, mask: u32) -> Condition {
    Condition { argument, mask, values: &[0] }
}

/// The argument is this process's ID.
pub const fn own_process(argument: u32) -> Condition {
    Condition { argument, mask: u32::MAX, values: &[] }
}

impl Condition {
    /// How many values there are to compare with.
    const fn count(self) -> usize {
        if self.values.is_empty() { 1 } else { self.values.len() }
    }

    /// Number of instructions that check this condition.
    const fn length(self) -> usize {
        let mask = if self.mask == u32::MAX { 0 } else { 1 };
        1 + mask + self.count()
    }
}

/// What the kernel does with a system call.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// The call is allowed if all of these conditions hold; otherwise it is a mismatch.
    Allow(&'static [Condition]),
    /// The call fails with this error number.
    Fail(i32),
}

/// A system call with a rule of its own.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    call: u32,
    action: Action,
}

impl Rule {
    /// The call's number.
    pub const fn call(&self) -> u32 {
        self.call
    }

    /// For tests of lists: arguments with which the call is allowed, each listed value at least once.
    #[doc(hidden)]
    pub fn allowed_arguments(&self) -> Vec<[u64; 6]> {
        let Action::Allow(conditions) = self.action else { return Vec::new() };
        let mut all = vec![[0; 6]];
        for condition in conditions {
            let own = [std::process::id()];
            let values = if condition.values.is_empty() { &own } else { condition.values };
            let with = |arguments: &[u64; 6], value: u32| {
                let mut arguments = *arguments;
                arguments[condition.argument as usize] = value.into();
                arguments
            };
            all = all.iter().flat_map(|one| values.iter().map(move |value| with(one, *value))).collect();
        }
        all
    }
}

/// A system call that is always allowed.
pub const fn any(call: libc::c_long) -> Rule {
    when(call, &[])
}

/// A system call that is allowed if all of these conditions hold.
pub const fn when(call: libc::c_long, conditions: &'static [Condition]) -> Rule {
    // System call numbers are small.
    Rule { call: call as u32, action: Action::Allow(conditions) }
}

/// A system call that fails with this error number, because its caller can go on without it.
pub const fn fails(call: libc::c_long, errno: i32) -> Rule {
    Rule { call: call as u32, action: Action::Fail(errno) }
}

/// A filter.
///
/// ```text
///  architecture? number? ─→ the tree ─→ what is left to be checked of some calls ─→ allow, mismatch
/// ```
#[derive(Clone, Debug)]
pub struct Program {
    instructions: [sock_filter; MAX_LENGTH],
    length: usize,
    /// Index of the first check of the next rule that has checks.
    checks: usize,
    /// Index of the instruction that allows the call; the mismatch comes after it.
    allow: usize,
    /// Index of the instruction that compares with this process's ID.
    own_process: Option<usize>,
}

impl Program {
    /// The filter with these lists of rules, in any order. If a call has two rules, the first counts.
    pub const fn new(lists: &[&[Rule]]) -> Self {
        let (rules, count) = sorted(lists);
        let (groups, count) = grouped(&rules, count);
        let checks = PRELUDE + search_length(&groups, 0, count, 0, NUMBERS);
        let (mut allow, mut at) = (checks, 0);
        while at < count {
            allow += groups[at].action.length();
            at += 1;
        }
        let mut program = Self {
            instructions: [ENDS_IN_MISMATCH; MAX_LENGTH],
            length: 0,
            checks,
            allow,
            own_process: None,
        };
        program.push(load(ARCHITECTURE));
        let mismatch = program.distance(allow + 1);
        program.push(jump(BPF_JEQ, X86_64, 0, mismatch));
        program.push(load(NUMBER));
        program.search(&groups, 0, count, 0, NUMBERS);
        at = 0;
        while at < count {
            program.check(groups[at].action);
            at += 1;
        }
        assert!(program.length == allow);
        program.push(answer(SECCOMP_RET_ALLOW));
        program.push(ENDS_IN_MISMATCH);
        program
    }

    /// The instructions, as they are for the process that calls this.
    pub fn instructions(&self) -> Vec<sock_filter> {
        let mut instructions = self.instructions[..self.length].to_vec();
        if let Some(at) = self.own_process {
            instructions[at].k = std::process::id();
        }
        instructions
    }

    /// Restricts the calling thread, which has no_new_privs, and those that it starts, for good.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn install(&self) -> Result<(), Errno> {
        install(&self.instructions(), 0)
    }

    const fn push(&mut self, instruction: sock_filter) {
        self.instructions[self.length] = instruction;
        self.length += 1;
    }

    /// The distance from the instruction that comes next to another.
    const fn distance(&self, to: usize) -> u8 {
        let distance = to - self.length - 1;
        assert!(distance <= u8::MAX as usize, "a jump is too long: there are too many rules");
        distance as u8
    }

    /// Makes the search for a system call whose number is from `low` to before `high` among the groups from `first` to
    /// before `end`.
    const fn search(&mut self, groups: &[Group], first: usize, end: usize, low: u32, high: u32) {
        if end - first == 1 {
            let Group { start, end, action } = groups[first];
            let length = action.length();
            let found = if length == 0 { self.allow } else { self.checks };
            self.checks += length;
            if end - start == 1 {
                let (found, mismatch) = (self.distance(found), self.distance(self.allow + 1));
                return self.push(jump(BPF_JEQ, start, found, mismatch));
            }
            if start > low {
                let mismatch = self.distance(self.allow + 1);
                self.push(jump(BPF_JGE, start, 0, mismatch));
            }
            let (found, mismatch) = (self.distance(found), self.distance(self.allow + 1));
            return self.push(jump(BPF_JGE, end, mismatch, found));
        }
        let middle = middle(groups, first, end, low, high);
        let parting = groups[middle].start;
        let right = self.distance(self.length + 1 + search_length(groups, first, middle, low, parting));
        self.push(jump(BPF_JGE, parting, right, 0));
        self.search(groups, first, middle, low, parting);
        self.search(groups, middle, end, parting, high);
    }

    /// Makes the checks that follow when the rule of the system call is found.
    const fn check(&mut self, action: Action) {
        let conditions = match action {
            Action::Fail(errno) => return self.push(answer(SECCOMP_RET_ERRNO | errno as u32)),
            Action::Allow(conditions) => conditions,
        };
        let mut at = 0;
        while at < conditions.len() {
            let condition = conditions[at];
            self.push(load(ARGUMENTS + condition.argument * ARGUMENT));
            if condition.mask != u32::MAX {
                self.push(instruction(BPF_ALU | BPF_AND | BPF_K, 0, 0, condition.mask));
            }
            at += 1;
            let count = condition.count();
            let holds = if at == conditions.len() { self.allow } else { self.length + count };
            let mut value = 0;
            while value < count {
                let otherwise = if value + 1 == count { self.distance(self.allow + 1) } else { 0 };
                let wanted = if condition.values.is_empty() {
                    assert!(self.own_process.is_none(), "two rules ask for this process's ID");
                    self.own_process = Some(self.length);
                    0
                } else {
                    condition.values[value]
                };
                self.push(jump(BPF_JEQ, wanted, self.distance(holds), otherwise));
                value += 1;
            }
        }
    }
}

impl Action {
    /// Number of instructions that check this action.
    const fn length(self) -> usize {
        let conditions = match self {
            Self::Fail(_) => return 1,
            Self::Allow(conditions) => conditions,
        };
        let (mut length, mut at) = (0, 0);
        while at < conditions.len() {
            length += conditions[at].length();
            at += 1;
        }
        length
    }
}

/// Installs a program on the calling thread, with `SECCOMP_FILTER_FLAG_*`.
///
/// # Errors
/// Those of seccomp(2); EINVAL for a program that is empty or too long.
pub fn install(program: &[sock_filter], flags: u32) -> Result<(), Errno> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    // The kernel only reads it.
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call and has the length that is passed with it.
    done(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })
}

/// The rules by their calls, and how many there are.
const fn sorted(lists: &[&[Rule]]) -> ([Rule; MAX_RULES], usize) {
    let mut rules = [any(0); MAX_RULES];
    let (mut count, mut list) = (0, 0);
    while list < lists.len() {
        let mut next = 0;
        while next < lists[list].len() {
            let rule = lists[list][next];
            next += 1;
            let mut at = count;
            while at > 0 && rule.call < rules[at - 1].call {
                at -= 1;
            }
            if at > 0 && rules[at - 1].call == rule.call {
                continue;
            }
            let mut end = count;
            while end > at {
                rules[end] = rules[end - 1];
                end -= 1;
            }
            rules[at] = rule;
            count += 1;
        }
        list += 1;
    }
    (rules, count)
}

/// System calls with adjacent numbers and the same action.
#[derive(Clone, Copy)]
struct Group {
    /// The first number.
    start: u32,
    /// The number after the last.
    end: u32,
    action: Action,
}

/// The groups of these rules, and how many there are: calls that are always allowed go together.
const fn grouped(rules: &[Rule], count: usize) -> ([Group; MAX_RULES], usize) {
    let mut groups = [Group { start: 0, end: 1, action: Action::Allow(&[]) }; MAX_RULES];
    let (mut length, mut at) = (0, 0);
    while at < count {
        let Rule { call, action } = rules[at];
        let is_next = length > 0 && groups[length - 1].end == call;
        if is_next && groups[length - 1].action.length() == 0 && action.length() == 0 {
            groups[length - 1].end = call + 1;
        } else {
            groups[length] = Group { start: call, end: call + 1, action };
            length += 1;
        }
        at += 1;
    }
    (groups, length)
}

/// The group with which the right half of a search begins: about as many numbers are on either side, because most numbers have no
/// rule.
const fn middle(groups: &[Group], first: usize, end: usize, low: u32, high: u32) -> usize {
    let mut middle = first + 1;
    while middle + 1 < end && 2 * groups[middle].start < low + high {
        middle += 1;
    }
    middle
}

/// Number of instructions of a search.
const fn search_length(groups: &[Group], first: usize, end: usize, low: u32, high: u32) -> usize {
    if end - first == 1 {
        let Group { start, end, .. } = groups[first];
        return if end - start > 1 && start > low { 2 } else { 1 };
    }
    let middle = middle(groups, first, end, low, high);
    let parting = groups[middle].start;
    1 + search_length(groups, first, middle, low, parting) + search_length(groups, middle, end, parting, high)
}

const ENDS_IN_MISMATCH: sock_filter = answer(MISMATCH);

const fn answer(value: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, 0, 0, value)
}

const fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

const fn jump(comparison: u32, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    instruction(BPF_JMP | comparison | BPF_K, if_true, if_false, value)
}

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    // BPF codes have 16 bits.
    sock_filter { code: code as u16, jt, jf, k }
}

/// The result of a program, for tests of lists: runs the few instructions that these programs consist of.
///
/// # Panics
/// The program has another instruction.
#[doc(hidden)]
pub fn verdict(program: &[sock_filter], architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
    let (mut at, mut value) = (0, 0);
    loop {
        let instruction = &program[at];
        let jump = |taken: bool| 1 + usize::from(if taken { instruction.jt } else { instruction.jf });
        at += match u32::from(instruction.code) {
            0x20 => {
                value = match instruction.k {
                    NUMBER => call,
                    ARCHITECTURE => architecture,
                    offset => arguments[(offset - ARGUMENTS) as usize / ARGUMENT as usize] as u32,
                };
                1
            }
            0x54 => {
                value &= instruction.k;
                1
            }
            0x15 => jump(value == instruction.k),
            0x35 => jump(value >= instruction.k),
            0x06 => return instruction.k,
            code => panic!("instruction {code:#x}"),
        };
    }
}

#[cfg(test)]
#[path = "seccomp_test.rs"]
mod tests;
