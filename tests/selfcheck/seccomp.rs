//! `linux.seccomp`, by making system calls that a child of this process may well die of.

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pipe};
use serde_json::Value;

use crate::config::{at, list, text};
use crate::findings::Findings;

/// Calls that do no harm, whatever their arguments.
const PROBES: [(&str, i64); 6] = [
    ("getpriority", libc::SYS_getpriority),
    ("getpgid", libc::SYS_getpgid),
    ("getsid", libc::SYS_getsid),
    ("sched_get_priority_max", libc::SYS_sched_get_priority_max),
    ("sched_get_priority_min", libc::SYS_sched_get_priority_min),
    ("sched_getscheduler", libc::SYS_sched_getscheduler),
];

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The kernel did something else than what a filter would say.
    Done,
    Errno(i32),
    /// Ended its process.
    Signal(i32),
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => f.write_str("let through"),
            Self::Errno(errno) => write!(f, "answered by error {errno}"),
            Self::Signal(signal) => write!(f, "punished by signal {signal}"),
        }
    }
}

pub fn check(config: &Value, findings: &mut Findings) -> Result<()> {
    let profile = at(config, "linux.seccomp");
    // SAFETY: the option takes no argument.
    let found = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) };
    let mode = if profile.is_object() { 2 } else { 0 };
    findings.equal("linux.seccomp.defaultAction", "the mode of seccomp", found, mode);
    if !profile.is_object() {
        return Ok(());
    }
    let rules = list(profile, "syscalls");
    for (name, number) in PROBES {
        let default = answer(text(profile, "defaultAction"), profile["defaultErrnoRet"].as_i64());
        for args in candidates(rules, name) {
            let fits = |rule: &&Value| names(rule, name) && holds(rule, &args);
            let rule = rules.iter().position(|rule| fits(&rule));
            let wanted = rule.map_or(default, |rule| {
                answer(text(&rules[rule], "action"), rules[rule]["errnoRet"].as_i64())
            });
            let found = call(|| {
                // SAFETY: these calls take numbers only.
                unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) }
            })?;
            // An error that the call itself may give says no more than that it was let through.
            let found = if wanted == Answer::Done && is_own(found) { Answer::Done } else { found };
            let path = match rule {
                Some(rule) => format!("linux.seccomp.syscalls[{rule}]"),
                None if matches!(default, Answer::Errno(_)) => "linux.seccomp.defaultErrnoRet".to_owned(),
                None => "linux.seccomp.defaultAction".to_owned(),
            };
            findings.equal(&path, &format!("{name}{args:?}"), found, wanted);
        }
    }
    architectures(profile, findings)
}

/// The errors of the probes themselves.
fn is_own(answer: Answer) -> bool {
    matches!(answer, Answer::Errno(libc::EINVAL | libc::ESRCH))
}

fn names(rule: &Value, name: &str) -> bool {
    rule["names"].as_array().is_some_and(|names| names.iter().any(|known| known == name))
}

/// Arguments for a call: none special, and for every rule some that meet its conditions and some that do not.
fn candidates(rules: &[Value], name: &str) -> Vec<[u64; 6]> {
    // Neither a process that exists nor a policy that does.
    let plain = [0x7ff0_0000; 6];
    let mut all = vec![plain];
    for rule in rules.iter().filter(|rule| names(rule, name)) {
        let (mut met, mut missed) = (plain, plain);
        for condition in list(rule, "args") {
            let index = condition["index"].as_u64().unwrap_or(0) as usize;
            let (value, two) =
                (condition["value"].as_u64().unwrap_or(0), condition["valueTwo"].as_u64().unwrap_or(0));
            (met[index], missed[index]) = match text(condition, "op") {
                "SCMP_CMP_NE" => (value ^ 1, value),
                "SCMP_CMP_LT" => (value - 1, value),
                "SCMP_CMP_LE" => (value, value + 1),
                "SCMP_CMP_GE" => (value, value - 1),
                "SCMP_CMP_GT" => (value + 1, value),
                "SCMP_CMP_MASKED_EQ" => (two, two ^ value),
                _ => (value, value ^ 1),
            };
        }
        all.extend([met, missed]);
    }
    all
}

/// Whether the conditions of a rule hold, all of them.
fn holds(rule: &Value, args: &[u64; 6]) -> bool {
    list(rule, "args").iter().all(|condition| {
        let arg = args[condition["index"].as_u64().unwrap_or(0) as usize];
        let value = condition["value"].as_u64().unwrap_or(0);
        match text(condition, "op") {
            "SCMP_CMP_NE" => arg != value,
            "SCMP_CMP_LT" => arg < value,
            "SCMP_CMP_LE" => arg <= value,
            "SCMP_CMP_GE" => arg >= value,
            "SCMP_CMP_GT" => arg > value,
            "SCMP_CMP_MASKED_EQ" => arg & value == condition["valueTwo"].as_u64().unwrap_or(0),
            _ => arg == value,
        }
    })
}

fn answer(action: &str, errno: Option<i64>) -> Answer {
    match action {
        "SCMP_ACT_ERRNO" => Answer::Errno(errno.unwrap_or(libc::EPERM.into()) as i32),
        // Without a tracer.
        "SCMP_ACT_TRACE" => Answer::Errno(libc::ENOSYS),
        "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" => Answer::Done,
        _ => Answer::Signal(libc::SIGSYS),
    }
}

/// A call by the ways of the other architectures that x86-64 has: whoever does not list them forbids them.
fn architectures(profile: &Value, findings: &mut Findings) -> Result<()> {
    const PATH: &str = "linux.seccomp.architectures";
    const X32_BIT: i64 = 0x4000_0000;
    let lists = |name: &str| list(profile, "architectures").iter().any(|arch| arch == name);
    // SAFETY: getpid takes nothing; where the number is not known, nothing is done.
    let x32 = call(|| unsafe { libc::syscall(X32_BIT | libc::SYS_getpid) })?;
    // The guest's kernel has none of these calls, which a program may find out if it is allowed to ask.
    let wanted =
        if lists("SCMP_ARCH_X32") { Answer::Errno(libc::ENOSYS) } else { Answer::Signal(libc::SIGSYS) };
    findings.equal(PATH, "a system call of x32", x32, wanted);
    let i386 = call(|| {
        const GETPID: u64 = 20;
        let result: u64;
        // SAFETY: getpid takes nothing and changes nothing but the result.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("rax") GETPID => result, out("r8") _, out("r9") _,
            out("r10") _, out("r11") _)
        };
        (result as i32).into()
    })?;
    let wanted = if lists("SCMP_ARCH_X86") { Answer::Done } else { Answer::Signal(libc::SIGSYS) };
    findings.equal(PATH, "a system call of i386", i386, wanted);
    Ok(())
}

/// Makes a system call in a child.
fn call(make: impl FnOnce() -> i64) -> Result<Answer> {
    let (reading, writing) = pipe()?;
    // SAFETY: this program has one thread.
    match unsafe { fork() }.context("fork")? {
        ForkResult::Child => {
            drop(reading);
            let errno = if make() == -1 { io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 };
            let _ = std::fs::File::from(writing).write_all(&errno.to_ne_bytes());
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writing);
            let mut errno = [0; 4];
            let read = std::fs::File::from(reading).read_exact(&mut errno);
            match (waitpid(child, None)?, read) {
                (WaitStatus::Signaled(_, signal, _), _) => Ok(Answer::Signal(signal as i32)),
                (_, Ok(())) if errno == [0; 4] => Ok(Answer::Done),
                (_, Ok(())) => Ok(Answer::Errno(i32::from_ne_bytes(errno))),
                (status, Err(error)) => bail!("a child ended with {status:?}: {error}"),
            }
        }
    }
}
