use super::*;
use crate::lower::seccomp_fixture::run;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const TRAP: u32 = libc::SECCOMP_RET_TRAP;
const NO_SYSCALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// A section that always gives the same answer.
fn section(newest: Option<u32>, answer: u32) -> Section {
    Section { newest, program: assemble(&[(RETURN, 0, 0, answer)]) }
}

#[test]
fn newer_numbers_do_not_exist_and_older_ones_reach_their_section() {
    let program = join(&section(Some(435), ALLOW), Some(&section(Some(11), TRAP)), false);
    for (architecture, number, expected) in [
        (AUDIT_ARCH_X86_64, 0, ALLOW),
        (AUDIT_ARCH_X86_64, 435, ALLOW),
        (AUDIT_ARCH_X86_64, 436, NO_SYSCALL),
        (AUDIT_ARCH_X86_64, X32_BIT | 500, ALLOW),
        (AUDIT_ARCH_I386, 11, TRAP),
        (AUDIT_ARCH_I386, 12, NO_SYSCALL),
        (0xc000_00b7, 9999, ALLOW),
    ] {
        assert_eq!(run(&program, number, architecture, [0; 6]), expected, "{architecture:#x} {number}");
    }
}

#[test]
fn what_the_profile_does_not_list_or_allows_anyway_is_left_to_it() {
    let program = join(&section(None, ALLOW), None, true);
    assert_eq!(run(&program, 99_999, AUDIT_ARCH_X86_64, [0; 6]), ALLOW);
    assert_eq!(run(&program, 99_999, AUDIT_ARCH_I386, [0; 6]), ALLOW);
    assert_eq!(run(&program, X32_BIT, AUDIT_ARCH_X86_64, [0; 6]), NO_SYSCALL);
}
