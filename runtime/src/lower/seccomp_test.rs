use super::*;
use crate::lower::seccomp_fixture::run;
use serde_json::{Value, json};

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn check(seccomp: Value) -> Result<Option<Profile>, SpecError> {
    let linux: Linux = serde_json::from_value(json!({ "seccomp": seccomp })).unwrap();
    Profile::check(Some(&linux))
}

fn compiled(seccomp: Value) -> SeccompFilter {
    check(seccomp).unwrap().unwrap().compile().unwrap()
}

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number as u32
}

/// The answers of a profile with one rule about mkdir, to mkdir(.., mode).
fn answer(rule: Value, mode: u64) -> u32 {
    let mut rule = rule;
    rule["names"] = json!(["mkdir"]);
    let filter = compiled(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }));
    run(&filter.program, libc::SYS_mkdir as u32, X86_64, [0, mode, 0, 0, 0, 0])
}

#[test]
fn every_action_is_the_kernels() {
    for (action, expected) in [
        ("SCMP_ACT_KILL", libc::SECCOMP_RET_KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", libc::SECCOMP_RET_KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", libc::SECCOMP_RET_KILL_PROCESS),
        ("SCMP_ACT_TRAP", libc::SECCOMP_RET_TRAP),
        ("SCMP_ACT_ERRNO", errno(libc::EPERM)),
        ("SCMP_ACT_TRACE", libc::SECCOMP_RET_TRACE | 1),
        ("SCMP_ACT_LOG", libc::SECCOMP_RET_LOG),
        // The default's own action needs no rule.
        ("SCMP_ACT_ALLOW", ALLOW),
    ] {
        assert_eq!(answer(json!({ "action": action }), 0), expected, "{action}");
    }
    assert_eq!(answer(json!({ "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }), 0), errno(38));
    assert_eq!(answer(json!({ "action": "SCMP_ACT_TRACE", "errnoRet": 7 }), 0), libc::SECCOMP_RET_TRACE | 7);
}

#[test]
fn every_operator_compares_64_bits() {
    let big = 1u64 << 40 | 5;
    for (operator, value, two, matching, other) in [
        ("SCMP_CMP_NE", big, 0, 5, big),
        ("SCMP_CMP_LT", big, 0, big - 1, big),
        ("SCMP_CMP_LE", big, 0, big, big + 1),
        ("SCMP_CMP_EQ", big, 0, big, 5),
        ("SCMP_CMP_GE", big, 0, big, big - 1),
        ("SCMP_CMP_GT", big, 0, big + 1, big),
        ("SCMP_CMP_MASKED_EQ", 0o7000, 0o4000, 0o4755, 0o2755),
    ] {
        let rule = || json!({ "action": "SCMP_ACT_ERRNO", "args": [{ "index": 1, "value": value, "valueTwo": two, "op": operator }] });
        assert_eq!(answer(rule(), matching), errno(libc::EPERM), "{operator}");
        assert_eq!(answer(rule(), other), ALLOW, "{operator}");
    }
}

#[test]
fn conditions_on_one_argument_are_alternatives_and_on_several_belong_together() {
    let equals = |index: u32, value: u64| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
    let either = || json!({ "action": "SCMP_ACT_ERRNO", "args": [equals(1, 1), equals(1, 2)] });
    assert_eq!([1, 2, 3].map(|mode| answer(either(), mode)), [errno(1), errno(1), ALLOW]);
    let both = |first| json!({ "action": "SCMP_ACT_ERRNO", "args": [equals(0, first), equals(1, 1)] });
    assert_eq!(answer(both(0), 1), errno(1));
    assert_eq!(answer(both(9), 1), ALLOW);
}

#[test]
fn architectures_are_the_listed_ones_and_the_guests_own() {
    let profile = |architectures: Value| {
        compiled(json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures })).program
    };
    let mkdir_of_i386 = |program: &[u8]| run(program, 39, I386, [0; 6]);
    assert_eq!(mkdir_of_i386(&profile(json!([]))), libc::SECCOMP_RET_KILL_THREAD);
    let all = profile(json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"]));
    assert_eq!(mkdir_of_i386(&all), ALLOW);
}

#[test]
fn what_a_strict_profile_cannot_know_does_not_exist() {
    let filter = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{ "names": ["read", "openat2", "no_such_call"], "action": "SCMP_ACT_ALLOW" }]
    }));
    let ask = |number| run(&filter.program, number, X86_64, [0; 6]);
    assert_eq!(ask(libc::SYS_read as u32), ALLOW);
    assert_eq!(ask(libc::SYS_mkdir as u32), errno(libc::EPERM));
    assert_eq!(ask(libc::SYS_openat2 as u32 + 100), errno(libc::ENOSYS));
}

#[test]
fn flags_are_the_kernels() {
    let flags = |flags: Value| compiled(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": flags })).flags;
    assert_eq!(flags(Value::Null), 4);
    assert_eq!(flags(json!([])), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"])), 2);
}

#[test]
fn mistakes_and_listeners_are_named_by_their_path() {
    let rule = |rule: Value| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    for (seccomp, path) in [
        (json!({ "defaultAction": "SCMP_ACT_NOTIFY" }), "defaultAction"),
        (json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/l.sock" }), "listenerPath"),
        (json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096 }), "defaultErrnoRet"),
        (rule(json!({ "names": ["read"], "action": "SCMP_ACT_NOTIFY" })), "syscalls[0].action"),
        (rule(json!({ "names": ["read", ""], "action": "SCMP_ACT_KILL" })), "syscalls[0].names[1]"),
        (
            rule(json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000 })),
            "syscalls[0].errnoRet",
        ),
        (
            rule(
                json!({ "names": ["read"], "action": "SCMP_ACT_KILL", "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }] }),
            ),
            "syscalls[0].args[0].index",
        ),
    ] {
        assert_eq!(check(seccomp).unwrap_err().path, format!("linux.seccomp.{path}"));
    }
}
