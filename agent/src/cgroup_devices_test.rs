use proptest::prelude::*;

use super::*;

/// What the kernel asks.
#[derive(Clone, Copy, Debug)]
struct Question {
    kind: u32,
    accesses: u32,
    major: u32,
    minor: u32,
}

/// Runs a program as the kernel does, for the instructions that [`compile`] uses.
fn run(program: &[Instruction], question: Question) -> u64 {
    let context = [question.accesses << 16 | question.kind, question.major, question.minor];
    let mut registers = [0u64; 11];
    let mut at = 0usize;
    // There are no loops: each instruction runs at most once.
    for _ in 0..=program.len() {
        let Instruction { code, registers: pair, offset, immediate } = program[at];
        let (destination, source) = (usize::from(pair & 15), usize::from(pair >> 4));
        let extended = immediate as i64 as u64;
        at += 1;
        let jump = match code {
            LOAD_32 => {
                assert_eq!(source, usize::from(CONTEXT));
                registers[destination] = context[offset as usize / 4].into();
                false
            }
            MOVE => {
                registers[destination] = registers[source];
                false
            }
            MOVE_IMMEDIATE => {
                registers[destination] = extended;
                false
            }
            AND_IMMEDIATE => {
                registers[destination] &= extended;
                false
            }
            SHIFT_RIGHT_IMMEDIATE => {
                registers[destination] >>= extended;
                false
            }
            JUMP_EQUAL => registers[destination] == extended,
            JUMP_NOT_EQUAL => registers[destination] != extended,
            JUMP_NOT_EQUAL_32 => registers[destination] as u32 != immediate as u32,
            EXIT => return registers[usize::from(RESULT)],
            other => panic!("instruction {other:#x}"),
        };
        if jump {
            at += offset as usize;
        }
    }
    panic!("the program does not end")
}

/// The rules by their definition: each access on its own is decided by the last rule that names it.
fn allowed(rules: &[DeviceRule], question: Question) -> bool {
    [BPF_DEVCG_ACC_READ, BPF_DEVCG_ACC_WRITE, BPF_DEVCG_ACC_MKNOD]
        .into_iter()
        .filter(|access| question.accesses & access != 0)
        .all(|access| {
            let decides = |rule: &&DeviceRule| {
                let kind = match rule.kind {
                    None => true,
                    Some(DeviceKind::Block) => question.kind == BPF_DEVCG_DEV_BLOCK,
                    Some(DeviceKind::Char) => question.kind == BPF_DEVCG_DEV_CHAR,
                    Some(DeviceKind::Fifo | DeviceKind::Disk) => false,
                };
                let named = match access {
                    BPF_DEVCG_ACC_READ => rule.read,
                    BPF_DEVCG_ACC_WRITE => rule.write,
                    _ => rule.mknod,
                };
                kind && named
                    && rule.major.is_none_or(|major| major == question.major)
                    && rule.minor.is_none_or(|minor| minor == question.minor)
            };
            rules.iter().rev().find(decides).is_some_and(|rule| rule.allow)
        })
}

/// Few numbers, so that rules and questions meet, and the extremes.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0..4u32, Just(u32::MAX), Just(1 << 31)]
}

fn kind() -> impl Strategy<Value = DeviceKind> {
    prop_oneof![Just(DeviceKind::Char), Just(DeviceKind::Block), Just(DeviceKind::Fifo)]
}

prop_compose! {
    fn rule()(
        allow in any::<bool>(),
        kind in prop::option::of(kind()),
        major in prop::option::of(number()),
        minor in prop::option::of(number()),
        (read, write, mknod) in any::<(bool, bool, bool)>(),
    ) -> DeviceRule {
        DeviceRule { allow, kind, major, minor, read, write, mknod }
    }
}

prop_compose! {
    fn question()(
        kind in 1..=2u32,
        accesses in 1..=7u32,
        major in number(),
        minor in number(),
    ) -> Question {
        Question { kind, accesses, major, minor }
    }
}

proptest! {
    #[test]
    fn programs_decide_as_the_rules_say(
        rules in prop::collection::vec(rule(), 0..12),
        question in question(),
    ) {
        prop_assert_eq!(run(&compile(&rules), question) == 1, allowed(&rules, question));
    }

    #[test]
    fn jumps_stay_inside_the_program(rules in prop::collection::vec(rule(), 0..12)) {
        let program = compile(&rules);
        for (index, instruction) in program.iter().enumerate() {
            if matches!(instruction.code, JUMP_EQUAL | JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_32) {
                prop_assert!(instruction.offset >= 0);
                prop_assert!(index + 1 + (instruction.offset as usize) < program.len());
            }
        }
        prop_assert_eq!(program.last().map(|last| last.code), Some(EXIT));
    }
}

#[test]
fn what_no_rule_names_is_denied() {
    let null = Question { kind: BPF_DEVCG_DEV_CHAR, accesses: BPF_DEVCG_ACC_READ, major: 1, minor: 3 };
    assert_eq!(run(&compile(&[]), null), 0);
}
