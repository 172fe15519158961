//! Seccomp programs that are built when the runtime is compiled: a process that applies one only hands it to the kernel.
//!
//! The kernel runs a new filter once for every system call that there is, and translates it into machine code: a list that is
//! compared one by one would cost more instructions than all else that a relay does to start. So a system call is looked up
//! in a tree, and all that are not allowed end at one instruction.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, sock_filter,
};

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Bytes of an argument. The lower half, which comes first, is all that the kernel looks at of those that are checked.
const ARGUMENT: u32 = 8;

/// AUDIT_ARCH_X86_64: 64-bit, little-endian, machine 62.
const X86_64: u32 = 0xc000_003e;

/// Instructions before the tree.
const PRELUDE: usize = 3;

/// As many numbers as there are, more or less.
const NUMBERS: u32 = 472;

/// Room for a program, in instructions, and for its rules.
const MAX: usize = 260;
const MAX_RULES: usize = 96;

/// What an argument must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition {
    /// Which one, from 0 on.
    argument: u32,
    /// The bits that matter.
    mask: u32,
    /// They are one of these.
    values: &'static [u32],
}

/// The argument is one of these.
pub(super) const fn one_of(argument: u32, values: &'static [u32]) -> Condition {
    Condition { argument, mask: u32::MAX, values }
}

/// The argument has none of these bits.
pub(super) const fn without(argument: u32, mask: u32) -> Condition {
    Condition { argument, mask, values: &[0] }
}

/// What becomes of a system call.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// It is allowed where all of these hold; otherwise it ends the process.
    Allow(&'static [Condition]),
    /// It fails with this.
    Fail(i32),
}

/// A system call that does not end the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    call: u32,
    action: Action,
}

/// A system call that is always allowed.
pub(super) const fn any(call: libc::c_long) -> Rule {
    when(call, &[])
}

/// One that is allowed where all of these hold.
pub(super) const fn when(call: libc::c_long, conditions: &'static [Condition]) -> Rule {
    // System call numbers are small.
    Rule { call: call as u32, action: Action::Allow(conditions) }
}

/// One that fails.
pub(super) const fn fails(call: libc::c_long, errno: i32) -> Rule {
    Rule { call: call as u32, action: Action::Fail(errno) }
}

/// A filter.
///
/// ```text
///  architecture? number? ─→ the tree ─→ what is left to be checked of some calls ─→ allow, kill
/// ```
#[derive(Debug)]
pub(super) struct Program {
    instructions: [sock_filter; MAX],
    length: usize,
    /// Where the checks of the next rule that has some begin.
    checks: usize,
    /// Where the end is that allows; the one that kills is behind it.
    allow: usize,
}

impl Program {
    /// The filter with these lists of rules, in any order. Every other system call ends the process.
    pub const fn new(lists: &[&[Rule]]) -> Self {
        let (rules, count) = sorted(lists);
        let checks = PRELUDE + 2 * count - 1;
        let (mut allow, mut at) = (checks, 0);
        while at < count {
            allow += rules[at].action.length();
            at += 1;
        }
        let mut program = Self { instructions: [KILL; MAX], length: 0, checks, allow };
        program.push(load(ARCHITECTURE));
        let kill = program.distance(allow + 1);
        program.push(jump(BPF_JEQ, X86_64, 0, kill));
        program.push(load(NUMBER));
        program.search(&rules, 0, count, 0, NUMBERS);
        at = 0;
        while at < count {
            program.check(rules[at].action);
            at += 1;
        }
        assert!(program.length == allow);
        program.push(answer(SECCOMP_RET_ALLOW));
        program.push(KILL);
        program
    }

    /// The instructions.
    pub fn instructions(&self) -> &[sock_filter] {
        &self.instructions[..self.length]
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

    /// Looks the system call, whose number is from `low` to before `high`, up among the rules from `first` to before `end`.
    /// They are parted where about as many numbers are on either side: most numbers have no rule.
    const fn search(&mut self, rules: &[Rule], first: usize, end: usize, low: u32, high: u32) {
        if end - first == 1 {
            let Rule { call, action } = rules[first];
            let length = action.length();
            let found = self.distance(if length == 0 { self.allow } else { self.checks });
            let kill = self.distance(self.allow + 1);
            self.checks += length;
            return self.push(jump(BPF_JEQ, call, found, kill));
        }
        let mut middle = first + 1;
        while middle + 1 < end && 2 * rules[middle].call < low + high {
            middle += 1;
        }
        let parting = rules[middle].call;
        let right = self.distance(self.length + 2 * (middle - first));
        self.push(jump(BPF_JGE, parting, right, 0));
        self.search(rules, first, middle, low, parting);
        self.search(rules, middle, end, parting, high);
    }

    /// What follows once the rule of the system call is found.
    const fn check(&mut self, action: Action) {
        let conditions = match action {
            Action::Fail(errno) => return self.push(answer(SECCOMP_RET_ERRNO | errno as u32)),
            Action::Allow(conditions) => conditions,
        };
        let mut at = 0;
        while at < conditions.len() {
            let Condition { argument, mask, values } = conditions[at];
            self.push(load(ARGUMENTS + argument * ARGUMENT));
            if mask != u32::MAX {
                self.push(instruction(BPF_ALU | BPF_AND | BPF_K, 0, 0, mask));
            }
            at += 1;
            let holds = if at == conditions.len() { self.allow } else { self.length + values.len() };
            let mut value = 0;
            while value < values.len() {
                let is_last = value + 1 == values.len();
                let otherwise = if is_last { self.distance(self.allow + 1) } else { 0 };
                self.push(jump(BPF_JEQ, values[value], self.distance(holds), otherwise));
                value += 1;
            }
        }
    }
}

impl Action {
    /// Instructions of its check.
    const fn length(self) -> usize {
        let conditions = match self {
            Self::Fail(_) => return 1,
            Self::Allow(conditions) => conditions,
        };
        let (mut length, mut at) = (0, 0);
        while at < conditions.len() {
            let mask = if conditions[at].mask == u32::MAX { 0 } else { 1 };
            length += 1 + mask + conditions[at].values.len();
            at += 1;
        }
        length
    }
}

/// The rules by their calls, of which none may be there twice, and how many there are.
const fn sorted(lists: &[&[Rule]]) -> ([Rule; MAX_RULES], usize) {
    let mut rules = [any(0); MAX_RULES];
    let (mut count, mut list) = (0, 0);
    while list < lists.len() {
        let mut next = 0;
        while next < lists[list].len() {
            let mut at = count;
            rules[at] = lists[list][next];
            while at > 0 && rules[at].call < rules[at - 1].call {
                (rules[at - 1], rules[at]) = (rules[at], rules[at - 1]);
                at -= 1;
            }
            assert!(at == 0 || rules[at].call != rules[at - 1].call, "a system call has two rules");
            count += 1;
            next += 1;
        }
        list += 1;
    }
    (rules, count)
}

#[cfg(not(feature = "takeover"))]
const KILL: sock_filter = answer(libc::SECCOMP_RET_KILL_PROCESS);
/// In a build that tries all calls.
#[cfg(feature = "takeover")]
const KILL: sock_filter = answer(stockade_takeover::MISMATCH);

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
