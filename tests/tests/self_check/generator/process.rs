//! `process`.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::json;

use super::{Settings, given};
use crate::fixture::PROGRAM;

pub fn program() -> impl Strategy<Value = Settings> {
    let args = vec("[ -~äß€]{0,12}", 0..3);
    let env = btree_map("[A-Z][A-Z0-9_]{1,9}", "[ -~ü]{0,20}", 0..4);
    let cwd = select(vec!["/", "/tmp", "/var/made/on/demand", "/link"]);
    (args, env, cwd, any::<bool>(), option::of(-1000i64..=1000)).prop_map(
        |(args, env, cwd, has_home, score)| {
            let mut all =
                vec![PROGRAM.to_owned(), "--list".to_owned(), "/config.json".to_owned(), "--".to_owned()];
            all.extend(args);
            let mut env: Vec<_> = env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            if has_home {
                env.push("HOME=/nowhere".to_owned());
            }
            // The working directory is seen without links.
            let cwd = if cwd == "/link" { "/linked" } else { cwd };
            given([
                ("process.args", Some(json!(all))),
                ("process.env", Some(json!(env))),
                ("process.cwd", Some(json!(cwd))),
                ("process.oomScoreAdj", score.map(|score| json!(score))),
            ])
        },
    )
}

pub fn user() -> impl Strategy<Value = Settings> {
    let id = || prop_oneof![Just(0u32), Just(1000), 1..u32::MAX];
    (id(), id(), option::of(0u32..=0o777), option::of(vec(id(), 0..4))).prop_map(
        |(uid, gid, umask, groups)| {
            given([
                ("process.user.uid", Some(json!(uid))),
                ("process.user.gid", Some(json!(gid))),
                ("process.user.umask", umask.map(|umask| json!(umask))),
                ("process.user.additionalGids", groups.map(|groups| json!(groups))),
            ])
        },
    )
}

pub fn capabilities() -> impl Strategy<Value = Settings> {
    const NAMES: [&str; 16] = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_KILL",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SYS_CHROOT",
        "CAP_SYS_ADMIN",
        "CAP_SYS_RESOURCE",
        "CAP_MKNOD",
        "CAP_AUDIT_WRITE",
        "CAP_BPF",
        "CAP_CHECKPOINT_RESTORE",
    ];
    let sets = subsequence(NAMES.to_vec(), 0..=NAMES.len()).prop_flat_map(|bounding| {
        let part = || {
            let count = bounding.len();
            subsequence(bounding.clone(), 0..=count)
        };
        (Just(bounding.clone()), part(), part(), part(), part())
    });
    let sets = sets.prop_map(|(bounding, permitted, inheritable, effective, ambient)| {
        let and = |one: &[&'static str], other: &[&'static str]| -> Vec<&str> {
            one.iter().copied().filter(|name| other.contains(name)).collect()
        };
        json!({
            "bounding": bounding,
            "permitted": permitted,
            "inheritable": inheritable,
            "effective": and(&effective, &permitted),
            "ambient": and(&and(&ambient, &permitted), &inheritable),
        })
    });
    (option::weighted(0.9, sets), any::<bool>()).prop_map(|(sets, no_new_privileges)| {
        given([("process.capabilities", sets), ("process.noNewPrivileges", Some(json!(no_new_privileges)))])
    })
}

pub fn rlimits() -> impl Strategy<Value = Settings> {
    const MIB: u64 = 1 << 20;
    /// With the least that lets the self-check run, and the most that the kernel takes.
    const LIMITS: [(&str, u64, u64); 16] = [
        ("RLIMIT_CPU", 600, u64::MAX),
        ("RLIMIT_FSIZE", MIB, u64::MAX),
        ("RLIMIT_DATA", 256 * MIB, u64::MAX),
        ("RLIMIT_STACK", MIB, u64::MAX),
        ("RLIMIT_CORE", 0, u64::MAX),
        ("RLIMIT_RSS", 0, u64::MAX),
        ("RLIMIT_NPROC", 100, u64::MAX),
        ("RLIMIT_NOFILE", 32, 1 << 20),
        ("RLIMIT_MEMLOCK", 0, u64::MAX),
        ("RLIMIT_AS", 512 * MIB, u64::MAX),
        ("RLIMIT_LOCKS", 0, u64::MAX),
        ("RLIMIT_SIGPENDING", 0, u64::MAX),
        ("RLIMIT_MSGQUEUE", 0, u64::MAX),
        ("RLIMIT_NICE", 0, 40),
        ("RLIMIT_RTPRIO", 0, 99),
        ("RLIMIT_RTTIME", 600_000_000, u64::MAX),
    ];
    let chosen = subsequence(LIMITS.to_vec(), 0..=LIMITS.len()).prop_shuffle();
    (chosen, vec(any::<(u64, u64, bool)>(), LIMITS.len())).prop_map(|(chosen, numbers)| {
        let limits = chosen.into_iter().zip(numbers).map(|((name, least, most), (soft, hard, unlimited))| {
            let hard = if unlimited { most } else { least + hard % (most - least).min(1 << 40) };
            json!({ "type": name, "soft": least + soft % (hard - least).max(1), "hard": hard })
        });
        given([("process.rlimits", Some(limits.collect()))])
    })
}

pub fn terminal() -> impl Strategy<Value = Settings> {
    let size = (1u16..500, 1u16..500);
    (prop::bool::weighted(0.25), option::weighted(0.8, size)).prop_map(|(terminal, size)| {
        let size = size.filter(|_| terminal);
        given([
            ("process.terminal", Some(json!(terminal))),
            ("process.consoleSize", size.map(|(height, width)| json!({ "height": height, "width": width }))),
        ])
    })
}
