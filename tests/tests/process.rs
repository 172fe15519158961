//! What a process in the container sees of `process` and of what `linux` says of every process: for the container's own
//! and for an exec.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, built, text};

/// A container `c` that sleeps, deleted with the value.
struct Container {
    stockade: Stockade,
    bundle: Bundle,
}

impl Container {
    fn start(edit: impl FnOnce(&mut Value)) -> Self {
        let bundle = Bundle::busybox(&["sleep", "10000"]).edit(edit);
        let container = Self { stockade: Stockade::new(), bundle };
        container.stockade.create(&container.bundle, "c");
        container.stockade.run(&["start", "c"]).success();
        container
    }

    /// `exec c sh -c SCRIPT`
    fn script(&self, script: &str) -> Outcome {
        self.stockade.run(&["exec", "c", "sh", "-c", script])
    }

    /// `exec --process` of a script as user 0 with what `more` adds.
    fn process(&self, script: &str, more: Value) -> Outcome {
        let mut process = json!({
            "args": ["sh", "-c", script], "cwd": "/", "user": { "uid": 0, "gid": 0 }, "env": ["PATH=/bin"],
        });
        for (name, value) in more.as_object().expect("an object") {
            process[name] = value.clone();
        }
        let file = self.bundle.path().join("process.json");
        fs::write(&file, process.to_string()).expect("write");
        self.stockade.run(&["exec", "--process", text(&file), "c"])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let outcome = self.stockade.run(&["delete", "--force", "c"]);
        assert!(std::thread::panicking() || outcome.status == 0, "{outcome:#?}");
    }
}

/// Policy, real-time priority and nice value of a line of /proc/PID/stat.
fn scheduling(stat: &str) -> [i32; 3] {
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a line of stat").1.split_whitespace().collect();
    // proc(5) counts from 1; the first field here is the third.
    [41, 40, 19].map(|field| fields[field - 3].parse().expect("a number"))
}

/// Without a child: a deadline task may have none.
const OWN_STAT: &str = "read -r line < /proc/self/stat; echo \"$line\"";

const BATCH: i32 = 3;
const FIFO: i32 = 1;
const DEADLINE: i32 = 6;

#[test]
fn scheduling_is_the_configs_and_an_execs_own() {
    let container = Container::start(|config| {
        config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 5 });
        config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 3 });
        config["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "0" });
        config["linux"]["personality"] = json!({ "domain": "LINUX32" });
        // Yama lets others than a process's ancestors look at its personality with this capability alone.
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set]
                .as_array_mut()
                .expect("a set")
                .push(json!("CAP_SYS_PTRACE"));
        }
    });
    let init = container.script("cat /proc/1/stat").success().stdout;
    assert_eq!(scheduling(&init), [BATCH, 0, 5], "{init}");
    let own = container.script(OWN_STAT).success().stdout;
    assert_eq!(scheduling(&own), [BATCH, 0, 5], "{own}");
    let out = container
        .script(
            "busybox ionice -p 1; busybox ionice; uname -m; cat /proc/1/personality /proc/self/personality; \
             grep Cpus_allowed_list /proc/self/status",
        )
        .success()
        .stdout;
    let expected =
        "best-effort: prio 3\nbest-effort: prio 3\ni686\n00000008\n00000008\nCpus_allowed_list:\t0\n";
    assert_eq!(out, expected);

    let real_time = json!({
        "scheduler": { "policy": "SCHED_FIFO", "priority": 10 },
        "ioPriority": { "class": "IOPRIO_CLASS_RT", "priority": 2 },
        "execCPUAffinity": { "initial": "0" },
    });
    let out = container.process(&format!("busybox ionice; {OWN_STAT}"), real_time).success().stdout;
    let (io, stat) = out.split_once('\n').expect("two lines");
    assert_eq!((io, scheduling(stat)), ("realtime: prio 2", [FIFO, 10, 0]), "{out}");

    let deadline = json!({ "scheduler": {
        "policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 50_000_000, "period": 100_000_000,
        "flags": ["SCHED_FLAG_RESET_ON_FORK"],
    } });
    let out = container.process(OWN_STAT, deadline).success().stdout;
    assert_eq!(scheduling(&out)[0], DEADLINE, "{out}");

    // The VM has one CPU.
    container
        .process("true", json!({ "execCPUAffinity": { "final": "7" } }))
        .failure(255, &["process.execCPUAffinity.final", "CPUs"]);
    container
        .process(
            "true",
            json!({ "scheduler": { "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_UTIL_CLAMP_MIN"] } }),
        )
        .failure(255, &["process.scheduler", "CONFIG_UCLAMP_TASK"]);
    container
        .process("true", json!({ "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 9 } }))
        .failure(255, &["process.ioPriority.priority", "9"]);
    container
        .process("true", json!({ "scheduler": { "policy": "SCHED_OTHER", "nice": -21 } }))
        .failure(255, &["process.scheduler.nice", "-21"]);
}

#[test]
fn a_memory_policy_is_the_configs_for_the_init_and_an_exec() {
    // The second field of a mapping's line.
    const POLICY: &str = "head -n 1 /proc/self/numa_maps | cut -d ' ' -f 2";
    let bundle = Bundle::script("read line").edit(|config| {
        config["linux"]["memoryPolicy"] =
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    });
    let stockade = Stockade::new();
    stockade.create(&bundle, "policy");
    let exec = stockade.run(&["exec", "policy", "sh", "-c", POLICY]).success();
    assert_eq!(exec.stdout, "bind=static:0\n");
    stockade.run(&["delete", "--force", "policy"]).success();

    let init = Bundle::script(POLICY).edit(|config| {
        config["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_PREFERRED", "nodes": "0" });
    });
    assert_eq!(stockade.run_bundle(&init, "init").success().stdout, "prefer:0\n");
}

/// All sixteen, by their names here and in /proc/self/limits.
const LIMITS: [(&str, &str); 16] = [
    ("RLIMIT_CPU", "Max cpu time"),
    ("RLIMIT_FSIZE", "Max file size"),
    ("RLIMIT_DATA", "Max data size"),
    ("RLIMIT_STACK", "Max stack size"),
    ("RLIMIT_CORE", "Max core file size"),
    ("RLIMIT_RSS", "Max resident set"),
    ("RLIMIT_NPROC", "Max processes"),
    ("RLIMIT_NOFILE", "Max open files"),
    ("RLIMIT_MEMLOCK", "Max locked memory"),
    ("RLIMIT_AS", "Max address space"),
    ("RLIMIT_LOCKS", "Max file locks"),
    ("RLIMIT_SIGPENDING", "Max pending signals"),
    ("RLIMIT_MSGQUEUE", "Max msgqueue size"),
    ("RLIMIT_NICE", "Max nice priority"),
    ("RLIMIT_RTPRIO", "Max realtime priority"),
    ("RLIMIT_RTTIME", "Max realtime timeout"),
];

/// The soft and the hard limit of this name in the text of /proc/PID/limits.
fn limit<'a>(limits: &'a str, name: &str) -> [&'a str; 2] {
    let line =
        limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {limits}"));
    let mut values = line.split_whitespace();
    [(); 2].map(|()| values.next().expect("a value"))
}

#[test]
fn every_rlimit_is_the_configs_for_the_init_and_an_exec() {
    // Enough for a shell in every unit, and each its own.
    let values = |index: usize| (1_000_000_000 + index as u64, 1_100_000_000 + index as u64);
    let container = Container::start(|config| {
        let all = LIMITS.iter().enumerate().map(|(index, (name, _))| {
            let (soft, hard) = values(index);
            json!({ "type": name, "soft": soft, "hard": hard })
        });
        config["process"]["rlimits"] = all.collect();
    });
    let own = container.script("cat /proc/self/limits").success().stdout;
    let init = container.script("cat /proc/1/limits").success().stdout;
    // What the file of an exec does not say is as config.json says it.
    let file = container.process("cat /proc/self/limits", json!({})).success().stdout;
    for (index, (_, name)) in LIMITS.iter().enumerate() {
        let (soft, hard) = values(index);
        let expected = [soft.to_string(), hard.to_string()];
        for limits in [&own, &init, &file] {
            assert_eq!(limit(limits, name), [expected[0].as_str(), expected[1].as_str()], "{name}");
        }
    }
    let more = json!({ "rlimits": [{ "type": "RLIMIT_CORE", "soft": 0, "hard": 7 }] });
    let limits = container.process("cat /proc/self/limits", more).success().stdout;
    assert_eq!(limit(&limits, "Max core file size"), ["0", "7"]);
    let infinite = json!({ "rlimits": [{ "type": "RLIMIT_AS", "soft": 3000000000u64, "hard": u64::MAX }] });
    let limits = container.process("cat /proc/self/limits", infinite).success().stdout;
    assert_eq!(limit(&limits, "Max address space"), ["3000000000", "unlimited"]);
}

#[test]
fn rlimits_that_nobody_lists_are_the_callers() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "10000"]).edit(|config| {
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_CORE", "soft": 5, "hard": 6 }]);
    });
    let limited = |files: &str, arguments: &str| {
        let script = format!(
            "ulimit -Sn {files}; ulimit -Hn 5000; ulimit -c 0; ulimit -i 4000; exec {} --root {} {arguments}",
            text(&built("release/stockade")),
            text(&stockade.root()),
        );
        Outcome::of(Command::new("bash").args(["-c", &script]), b"").success().stdout
    };
    limited("3000", &format!("run --detach --bundle {} c > /dev/null 2>&1", text(bundle.path())));
    let shown = limited("2000", "exec c cat /proc/1/limits /proc/self/limits");
    let (init, own) = shown.split_at(shown.rfind("Limit ").expect("two tables"));
    assert_eq!(
        (limit(init, "Max open files"), limit(own, "Max open files")),
        (["3000", "5000"], ["2000", "5000"])
    );
    for limits in [init, own] {
        assert_eq!(limit(limits, "Max pending signals"), ["4000", "4000"]);
        assert_eq!(limit(limits, "Max core file size"), ["5", "6"]);
    }
    stockade.run(&["delete", "--force", "c"]).success();
}

#[test]
fn the_working_directory_is_made_and_stays_in_the_container() {
    let bundle = Bundle::script("pwd -P; cat /proc/self/status | grep Uid; ls").edit(|config| {
        config["process"]["cwd"] = "/out/new".into();
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    });
    // Neither a link that leads out nor a directory that only root may enter is in the way.
    symlink("../../../../../../var/closed", bundle.rootfs().join("out")).expect("link");
    fs::create_dir(bundle.rootfs().join("var/closed")).expect("directory");
    fs::set_permissions(bundle.rootfs().join("var/closed"), fs::Permissions::from_mode(0o700)).expect("mode");
    let outcome = Stockade::new().run_bundle(&bundle, "cwd").success();
    assert_eq!(outcome.stdout.lines().next(), Some("/var/closed/new"), "{outcome:#?}");
    assert!(outcome.stdout.contains("Uid:\t1000"), "{outcome:#?}");
    assert!(bundle.rootfs().join("var/closed/new").is_dir());
}

#[test]
fn a_variable_counts_once_and_home_is_the_users() {
    let container = Container::start(|config| {
        config["process"]["env"] = json!(["PATH=/none", "A=1", "B=2", "PATH=/bin", "A=3"]);
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "umask": 0o77, "additionalGids": [7] });
    });
    // Set by the shell itself are PWD and SHLVL.
    let script = "cat /proc/self/environ | tr '\\0' '\\n' | grep -v -e ^PWD= -e ^SHLVL= | sort; umask; id -G";
    let own = container.script(script).success().stdout;
    assert_eq!(own, "A=3\nB=2\nHOME=/tmp\nPATH=/bin\n0077\n1000 7\n");
    let init = container.script("cat /proc/1/environ | tr '\\0' '\\n'").success().stdout;
    assert_eq!(init, "B=2\nPATH=/bin\nA=3\nHOME=/tmp\n");
    let user = json!({ "user": { "uid": 5, "gid": 6 }, "env": ["PATH=/bin", "HOME=/given"] });
    let file = container.process("echo $HOME; umask; id -u; id -g; id -G", user).success().stdout;
    assert_eq!(file, "/given\n0022\n5\n6\n6\n");
    // In an encoding of its own, and empty where somebody has said so.
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nm:x:500:500:J\xfcrgen:/home/m:/bin/sh\nw:x:5000:5000:W:/home/w:/bin/sh\n";
    fs::write(container.bundle.rootfs().join("etc/passwd"), passwd).expect("passwd");
    for (uid, home) in [(500, "/home/m\n"), (5000, "/home/w\n")] {
        let user = json!({ "user": { "uid": uid, "gid": 6 }, "env": ["PATH=/bin", "HOME="] });
        assert_eq!(container.process("echo $HOME", user).success().stdout, home);
    }
    let by_name = container.stockade.run(&["exec", "--user", "w", "c", "sh", "-c", "id -u"]).success();
    assert_eq!(by_name.stdout, "5000\n");
    let nobody = json!({ "user": { "uid": 5, "gid": 6 } });
    assert_eq!(container.process("echo $HOME", nobody).success().stdout, "/\n");
}

#[test]
fn capabilities_that_cannot_be_are_left_out_with_a_warning() {
    let bundle = Bundle::script("grep ^Cap /proc/self/status").edit(|config| {
        let capabilities = &mut config["process"]["capabilities"];
        *capabilities = json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_FLY"], "permitted": ["CAP_KILL", "CAP_CHOWN", "CAP_FLY"],
            "effective": ["CAP_CHOWN"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL", "CAP_CHOWN"],
        });
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    });
    let stockade = Stockade::new();
    let outcome = stockade.run(&["--log-level", "warn", "run", "-b", text(bundle.path()), "caps"]).success();
    let kill = format!("{:016x}", 1 << 5);
    let both = format!("{:016x}", 1 << 5 | 1 << 0);
    for (set, bits) in
        [("CapInh", &kill), ("CapPrm", &kill), ("CapEff", &kill), ("CapBnd", &both), ("CapAmb", &kill)]
    {
        assert!(outcome.stdout.contains(&format!("{set}:\t{bits}")), "{set} {bits}: {outcome:#?}");
    }
    for word in ["unknown capabilities: CAP_FLY", "capabilities.ambient", "CAP_CHOWN"] {
        assert!(outcome.stderr.contains(word), "{word}: {outcome:#?}");
    }
}
