//! `linux.seccomp`.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::{Settings, given};

/// What the self-check needs where everything else is forbidden.
const CALLS: &str = "access arch_prctl brk capget clone close dup execve exit exit_group fcntl fork fstat fstatfs futex \
    get_mempolicy getcwd getdents64 getgroups getpid getrandom getresgid getresuid getrlimit gettid \
    ioctl ioprio_get kill lseek lstat mknod mknodat mmap mprotect mremap munmap newfstatat open openat \
    pause personality pipe pipe2 poll ppoll prctl prlimit64 read readlink readlinkat rseq rt_sigaction \
    rt_sigprocmask rt_sigreturn sched_getaffinity sched_getattr set_robust_list set_tid_address \
    sigaltstack stat statfs statx tgkill umask uname unlink unlinkat vfork wait4 write writev";

pub fn seccomp() -> impl Strategy<Value = Settings> {
    let action = || {
        prop_oneof![
            2 => (1i64..4095).prop_map(|errno| ("SCMP_ACT_ERRNO", Some(errno))),
            1 => select(vec!["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"])
                .prop_map(|action| (action, None)),
            1 => select(vec!["SCMP_ACT_LOG", "SCMP_ACT_ALLOW", "SCMP_ACT_TRACE"]).prop_map(|action| (action, None)),
        ]
    };
    let operator = select(vec![
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    ]);
    let condition = (operator, 2u64..u64::from(u32::MAX), any::<u64>());
    let rule = (action(), vec(condition, 0..3));
    let calls = [
        "getpriority",
        "getpgid",
        "getsid",
        "sched_get_priority_max",
        "sched_get_priority_min",
        "sched_getscheduler",
    ];
    let rules = (subsequence(calls.to_vec(), 0..=5), vec(rule, 5)).prop_map(|(calls, rules)| {
        let rules = calls.into_iter().zip(rules).map(|(call, ((action, errno), conditions))| {
            let args = conditions.into_iter().enumerate().map(|(index, (operator, value, two))| {
                json!({ "index": index, "value": value, "valueTwo": two & value, "op": operator })
            });
            let mut rule =
                json!({ "names": [call, "no_such_call"], "action": action, "args": args.collect::<Value>() });
            if let Some(errno) = errno {
                rule["errnoRet"] = errno.into();
            }
            rule
        });
        rules.collect::<Vec<_>>()
    });
    let architectures = subsequence(vec!["SCMP_ARCH_X86", "SCMP_ARCH_X32"], 0..=2);
    let profile = (option::of(action()), rules, architectures).prop_map(|(forbidding, mut rules, more)| {
        let mut architectures = vec!["SCMP_ARCH_X86_64"];
        architectures.extend(more);
        let mut profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures });
        if let Some((action, errno)) = forbidding {
            profile["defaultAction"] = action.into();
            if let Some(errno) = errno {
                profile["defaultErrnoRet"] = errno.into();
            }
            rules.push(json!({ "names": CALLS.split(' ').collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW" }));
        }
        profile["syscalls"] = rules.into();
        profile
    });
    option::of(profile).prop_map(|profile| given([("linux.seccomp", profile)]))
}
