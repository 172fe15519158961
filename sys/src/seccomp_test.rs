use super::*;

const LISTS: &[&[Rule]] = &[
    &[when(5, &[one_of(1, &[7, 9])]), any(400), fails(3, 38)],
    &[any(5), when(8, &[without(2, 4), one_of(0, &[1])]), when(234, &[own_process(0)])],
];

fn answer_to(call: u32, arguments: [u64; 6]) -> u32 {
    static PROGRAM: Program = Program::new(LISTS);
    verdict(&PROGRAM.instructions(), X86_64, call, arguments)
}

#[test]
fn calls_are_found_and_their_arguments_looked_at() {
    let allows = |call, arguments| answer_to(call, arguments) == SECCOMP_RET_ALLOW;
    assert!(allows(400, [0; 6]));
    assert!(allows(5, [0, 7, 0, 0, 0, 0]) && allows(5, [0, 9, 0, 0, 0, 0]));
    assert!(!allows(5, [0; 6]), "of two rules the first counts");
    assert_eq!(answer_to(3, [0; 6]), SECCOMP_RET_ERRNO | 38);
    assert!(allows(8, [1, 0, 3, 0, 0, 0]));
    assert!(!allows(8, [1, 0, 5, 0, 0, 0]) && !allows(8, [2, 0, 3, 0, 0, 0]));
    let own = std::process::id().into();
    assert!(allows(234, [own, 0, 0, 0, 0, 0]) && !allows(234, [own + 1, 0, 0, 0, 0, 0]));
    for call in (0..600).chain([u32::MAX]).filter(|call| ![3, 5, 8, 234, 400].contains(call)) {
        assert_eq!(answer_to(call, [0; 6]), MISMATCH, "{call}");
    }
}

#[test]
fn other_architectures_have_no_calls() {
    let program = Program::new(LISTS).instructions();
    assert_eq!(verdict(&program, 0x4000_0003, 400, [0; 6]), MISMATCH);
}
