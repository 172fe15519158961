//! Deviations of a config.json from the container that was made by [`full`](crate::fixed::full): what the self-check must
//! find.

use serde_json::{Value, json};

use crate::fixture::set;

/// One altered config.json.
pub struct Alteration {
    /// Changes the full configuration.
    pub alter: Box<dyn Fn(&mut Value)>,
    /// The JSON paths of all differences.
    pub differences: &'static [&'static str],
    /// One of the lines, word for word.
    pub line: Option<&'static str>,
}

/// A value set at a path, and the paths of the differences.
fn one(path: &'static str, value: Value, differences: &'static [&'static str]) -> Alteration {
    let alter = Box::new(move |config: &mut Value| set(config, path, value.clone()));
    Alteration { alter, differences, line: None }
}

/// The same where the one difference has that path.
fn same(path: &'static str, value: Value) -> Alteration {
    let alter = Box::new(move |config: &mut Value| set(config, path, value.clone()));
    let differences = Box::leak(Box::new([path]));
    Alteration { alter, differences, line: None }
}

/// Any change.
fn change(alter: impl Fn(&mut Value) + 'static, differences: &'static [&'static str]) -> Alteration {
    Alteration { alter: Box::new(alter), differences, line: None }
}

impl Alteration {
    fn says(mut self, line: &'static str) -> Self {
        self.line = Some(line);
        self
    }
}

/// All of them: at least one for everything that is compared.
pub fn table() -> Vec<Alteration> {
    let mut table = process();
    table.extend(scheduling());
    table.extend(names_and_namespaces());
    table.extend(mounts());
    table.extend(devices_and_paths());
    table.extend(resources());
    table.extend(seccomp());
    table
}

fn process() -> Vec<Alteration> {
    vec![
        change(|config| config["process"]["args"][1] = "/other".into(), &["process.args"]),
        change(|config| config["process"]["env"][2] = "GREETING=bye".into(), &["process.env"]),
        same("process.cwd", json!("/var/new"))
            .says("process.cwd: is /var/new/directory, config.json says /var/new"),
        change(
            |config| {
                config["process"]["user"]["uid"] = 1002.into();
                // Of the user, not of passwd.
                config["process"]["env"].as_array_mut().expect("env").push("HOME=/tmp".into());
            },
            &["process.user.uid"],
        ),
        same("process.user.gid", json!(0)),
        same("process.user.umask", json!(0o22)).says("process.user.umask: is 0o27, config.json says 0o22"),
        same("process.user.additionalGids", json!([5])),
        same("process.capabilities.bounding", json!(["CAP_KILL"])),
        change(
            |config| {
                let sets = &mut config["process"]["capabilities"];
                sets["ambient"] = json!(["CAP_MKNOD"]);
            },
            &[
                "process.capabilities.ambient",
                "process.capabilities.effective",
                "process.capabilities.permitted",
            ],
        ),
        same("process.capabilities.inheritable", json!([])),
        change(|config| config["process"]["rlimits"][0]["soft"] = 98.into(), &["process.rlimits[0]"])
            .says("process.rlimits[0]: RLIMIT_NOFILE is 99:512, config.json says 98:512"),
        change(|config| config["process"]["rlimits"][1]["hard"] = 0.into(), &["process.rlimits[1]"]),
        same("process.noNewPrivileges", json!(false)),
        same("process.oomScoreAdj", json!(124)),
        same("process.terminal", json!(true)),
        change(
            |config| {
                config["process"]["terminal"] = true.into();
                config["process"]["consoleSize"] = json!({ "height": 7, "width": 9 });
            },
            &["process.terminal", "process.consoleSize"],
        ),
    ]
}

fn scheduling() -> Vec<Alteration> {
    vec![
        same("process.scheduler.policy", json!("SCHED_OTHER"))
            .says("process.scheduler.policy: is SCHED_BATCH, config.json says SCHED_OTHER"),
        same("process.scheduler.nice", json!(-4)),
        same("process.scheduler.flags", json!([])),
        one(
            "process.scheduler",
            json!({ "policy": "SCHED_DEADLINE", "priority": 1, "runtime": 10_000, "deadline": 20_000, "period": 30_000 }),
            &[
                "process.scheduler.policy",
                "process.scheduler.priority",
                "process.scheduler.runtime",
                "process.scheduler.deadline",
                "process.scheduler.period",
            ],
        ),
        same("process.ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 })),
        same("linux.personality.domain", json!("LINUX")),
        one(
            "linux.memoryPolicy",
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }),
            &["linux.memoryPolicy.mode", "linux.memoryPolicy.nodes", "linux.memoryPolicy.flags"],
        ),
        one(
            "process.execCPUAffinity",
            json!({ "initial": "0", "final": "1,3-4" }),
            &["process.execCPUAffinity.final"],
        )
        .says("process.execCPUAffinity.final: is [0], config.json says [1, 3, 4]"),
    ]
}

fn names_and_namespaces() -> Vec<Alteration> {
    let replaced = |kind: &'static str| {
        move |config: &mut Value| {
            let listed = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
            listed.retain(|entry| entry["type"] != kind);
        }
    };
    vec![
        same("hostname", json!("other")).says("hostname: is full, config.json says other"),
        same("domainname", json!("example.com")),
        change(replaced("pid"), &["linux.namespaces"]),
        change(replaced("ipc"), &["linux.namespaces"]),
        change(replaced("cgroup"), &["linux.namespaces"]).says(
            "linux.namespaces: the cgroup namespace is the container's own, config.json says the guest's",
        ),
        // In it no node can be made.
        change(replaced("user"), &["linux.namespaces", "linux.resources.devices"]),
        change(replaced("time"), &["linux.namespaces"]),
        change(|config| config["linux"]["uidMappings"][1]["size"] = 9.into(), &["linux.uidMappings"]),
        change(|config| config["linux"]["gidMappings"][1]["hostID"] = 9.into(), &["linux.gidMappings"]),
        same("linux.timeOffsets.monotonic", json!({ "secs": 5000, "nanosecs": 8 }))
            .says("linux.timeOffsets.monotonic: is monotonic 5000 7, config.json says monotonic 5000 8"),
        same("linux.timeOffsets.boottime", json!({ "secs": -3 })),
    ]
}

/// The first of [`full`](crate::fixed::full)'s own mounts.
const DATA: usize = 6;

fn mounts() -> Vec<Alteration> {
    let options = |mount: usize, options: Value| {
        move |config: &mut Value| config["mounts"][mount]["options"] = options.clone()
    };
    vec![
        same("root.readonly", json!(false)),
        same("linux.rootfsPropagation", json!("private")),
        change(
            |config| config["mounts"][0]["destination"] = "/process".into(),
            &["mounts[0].destination"],
        ),
        // In the other order /data would cover what is below it.
        change(
            |config| config["mounts"].as_array_mut().expect("mounts").swap(DATA, DATA + 1),
            &["mounts[6].destination", "mounts[10].options"],
        ),
        change(|config| config["mounts"][3]["type"] = "tmpfs".into(), &["mounts[3].type"])
            .says("mounts[3].type: is mqueue, config.json says tmpfs"),
        change(
            |config| config["mounts"][DATA + 4]["source"] = "sources/one".into(),
            &["mounts[10].source"],
        ),
        change(
            |config| config["mounts"][DATA + 2]["source"] = "sources/second.txt".into(),
            &["mounts[8].source"],
        ),
        change(options(3, json!(["nosuid", "noexec"])), &["mounts[3].options"])
            .says("mounts[3].options: is [\"nodev\", \"noexec\", \"nosuid\", \"relatime\"], config.json says [\"noexec\", \"nosuid\", \"relatime\"]"),
        change(
            options(DATA + 1, json!(["rbind", "ro", "nosuid", "rstrictatime", "rprivate"])),
            &["mounts[7].options"],
        ),
        change(
            options(DATA + 1, json!(["rbind", "rro", "rnosuid", "noatime"])),
            &["mounts[7].options", "mounts[10].options"],
        )
        .says("mounts[7].options: propagation is private, config.json says shared"),
        change(options(DATA + 2, json!(["bind", "noexec", "rro"])), &["mounts[8].options"]),
        change(options(DATA + 2, json!(["bind", "noexec", "rexec"])), &["mounts[8].options"]),
        change(
            options(DATA, json!(["nodev", "nosymfollow", "size=2m", "nr_inodes=100", "mode=750", "uid=1000", "shared"])),
            &["mounts[6].options"],
        ),
        change(
            options(1, json!(["nosuid", "strictatime", "mode=700", "size=65536k"])),
            &["mounts[1].options"],
        )
        .says("mounts[1].options: is mode=755, config.json says mode=700"),
        change(
            options(2, json!(["nosuid", "noexec", "newinstance", "ptmxmode=0600", "mode=0620", "gid=6"])),
            &["mounts[2].options"],
        ),
    ]
}

fn devices_and_paths() -> Vec<Alteration> {
    vec![
        change(|config| config["linux"]["devices"][0]["minor"] = 201.into(), &[
            "linux.devices[0]",
            // No rule is for that one.
            "linux.resources.devices[0]",
        ]),
        change(|config| config["linux"]["devices"][1]["fileMode"] = 0o600.into(), &["linux.devices[1]"])
            .says("linux.devices[1]: /dev/sub/disk is b 240:1 mode 666 owner 0:0, config.json says b 240:1 mode 600 owner 0:0"),
        change(|config| config["linux"]["devices"][2]["uid"] = 3.into(), &["linux.devices[2]"]),
        change(
            |config| config["linux"]["resources"]["devices"][1]["access"] = "r".into(),
            &["linux.resources.devices[0]"],
        )
        .says("linux.resources.devices[0]: writing /dev/probe (c 10:200) is allowed, config.json says denied"),
        change(
            |config| config["linux"]["resources"]["devices"][2]["access"] = "rw".into(),
            &["linux.resources.devices[2]"],
        ),
        change(
            |config| config["linux"]["sysctl"]["net.ipv4.ip_forward"] = "0".into(),
            &["linux.sysctl[net.ipv4.ip_forward]"],
        )
        .says("linux.sysctl[net.ipv4.ip_forward]: is 1, config.json says 0"),
        same("linux.maskedPaths", json!(["/proc/kcore", "/dev"])).at(&["linux.maskedPaths[1]"]),
        same("linux.readonlyPaths", json!(["/proc/sys", "/dev"])).at(&["linux.readonlyPaths[1]"]),
    ]
}

impl Alteration {
    fn at(mut self, differences: &'static [&'static str]) -> Self {
        self.differences = differences;
        self
    }
}

fn resources() -> Vec<Alteration> {
    vec![
        // What is left of both is another amount of swap.
        one(
            "linux.resources.memory.limit",
            json!(255 << 20),
            &["linux.resources.memory.limit", "linux.resources.memory.swap"],
        )
        .says("linux.resources.memory.limit: memory.max is 268435456, config.json says 267386880"),
        same("linux.resources.memory.reservation", json!(32 << 20)),
        same("linux.resources.memory.swap", json!(-1)),
        same("linux.resources.cpu.shares", json!(1024)),
        same("linux.resources.cpu.quota", json!(70_000)),
        same("linux.resources.cpu.period", json!(50_000)),
        same("linux.resources.cpu.burst", json!(20_000)),
        same("linux.resources.cpu.idle", json!(1)),
        same("linux.resources.pids.limit", json!(-1)),
        one(
            "linux.resources.hugepageLimits",
            json!([{ "pageSize": "2MB", "limit": 2 << 20 }]),
            &["linux.resources.hugepageLimits[0]"],
        ),
        same("linux.resources.blockIO.weight", json!(301)),
        one(
            "linux.resources.unified",
            json!({ "memory.high": "209715200", "memory.oom.group": "0" }),
            &["linux.resources.unified[memory.oom.group]"],
        ),
    ]
}

fn seccomp() -> Vec<Alteration> {
    let rule = |index: usize, property: &'static str, value: Value| {
        move |config: &mut Value| config["linux"]["seccomp"]["syscalls"][index][property] = value.clone()
    };
    vec![
        same("linux.seccomp", Value::Null).at(&["linux.seccomp.defaultAction"]),
        same("linux.seccomp.defaultAction", json!("SCMP_ACT_TRAP")),
        change(
            |config| {
                let profile = &mut config["linux"]["seccomp"];
                profile["defaultAction"] = "SCMP_ACT_ERRNO".into();
                profile["defaultErrnoRet"] = 99.into();
            },
            &["linux.seccomp.defaultErrnoRet"],
        ),
        change(rule(0, "errnoRet", json!(76)), &["linux.seccomp.syscalls[0]"]).says(
            "linux.seccomp.syscalls[0]: getpgid[2146435072, 2146435072, 2146435072, 2146435072, 2146435072, 2146435072] \
             is answered by error 77, config.json says answered by error 76",
        ),
        change(rule(1, "action", json!("SCMP_ACT_ALLOW")), &["linux.seccomp.syscalls[1]"]),
        change(rule(2, "args", json!([])), &["linux.seccomp.syscalls[2]"]),
        one(
            "linux.seccomp.architectures",
            json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]),
            &["linux.seccomp.architectures"],
        ),
    ]
}
