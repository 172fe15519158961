//! Two configurations that are always the same.

use serde_json::{Value, json};

use crate::fixture::{self, PROGRAM};

/// No more than a container needs.
pub fn minimal() -> Value {
    json!({
        "ociVersion": "1.0.0",
        "process": { "args": [PROGRAM, "--list", "/config.json"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": "rootfs" },
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "network" }] },
    })
}

/// Everything that the self-check compares.
pub fn full() -> Value {
    let mut config = fixture::base();
    let mut set = |path: &str, value: Value| fixture::set(&mut config, path, value);
    set("process.args", json!([PROGRAM, "--list", "/config.json", "--", "one more", "", "ünïcode"]));
    set("process.env", json!(["PATH=/bin", "EMPTY=", "GREETING=hello = world"]));
    set("process.cwd", json!("/var/new/directory"));
    set("process.user", json!({ "uid": 1000, "gid": 1001, "umask": 0o27, "additionalGids": [77, 5] }));
    set(
        "process.capabilities",
        json!({
            "bounding": ["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_MKNOD", "CAP_DAC_OVERRIDE"],
            "permitted": ["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_MKNOD", "CAP_DAC_OVERRIDE"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_NET_BIND_SERVICE", "CAP_MKNOD", "CAP_DAC_OVERRIDE"],
            "ambient": ["CAP_MKNOD", "CAP_DAC_OVERRIDE"],
        }),
    );
    set(
        "process.rlimits",
        json!([
            { "type": "RLIMIT_NOFILE", "soft": 99, "hard": 512 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": u64::MAX },
        ]),
    );
    set("process.noNewPrivileges", json!(true));
    set("process.oomScoreAdj", json!(123));
    set("hostname", json!("full"));
    set("domainname", json!("example.org"));
    set("root.readonly", json!(true));
    set("linux.rootfsPropagation", json!("shared"));
    set(
        "linux.namespaces",
        json!([
            { "type": "mount" }, { "type": "network" }, { "type": "pid" }, { "type": "ipc" }, { "type": "uts" },
            { "type": "cgroup" }, { "type": "user" }, { "type": "time" },
        ]),
    );
    set("linux.uidMappings", fixture::mappings(100_000));
    set("linux.gidMappings", fixture::mappings(300_000));
    set(
        "linux.timeOffsets",
        json!({ "monotonic": { "secs": 5000, "nanosecs": 7 }, "boottime": { "secs": 3 } }),
    );
    set("linux.personality", json!({ "domain": "LINUX32" }));
    set(
        "process.scheduler",
        json!({ "policy": "SCHED_BATCH", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"] }),
    );
    set("process.ioPriority", json!({ "class": "IOPRIO_CLASS_RT", "priority": 3 }));
    set("process.execCPUAffinity", json!({ "initial": "0", "final": "0" }));
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.extend([
        json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs",
                "options": ["nodev", "nosymfollow", "sync", "size=1m", "nr_inodes=100", "mode=750", "uid=1000", "shared"] }),
        json!({ "destination": "/data/below", "type": "bind", "source": "sources/one",
                "options": ["rbind", "rw", "rro", "nosuid", "relatime", "rnoatime", "rprivate"] }),
        json!({ "destination": "/file", "type": "none", "source": "sources/first.txt", "options": ["bind", "noexec"] }),
        json!({ "destination": "/link/inside", "type": "bind", "source": "sources/two", "options": ["rbind"] }),
        json!({ "destination": "/data/below", "type": "bind", "source": "sources/three", "options": ["bind"] }),
    ]);
    let mut set = |path: &str, value: Value| fixture::set(&mut config, path, value);
    set(
        "linux.devices",
        json!([
            { "path": "/dev/probe", "type": "c", "major": 10, "minor": 200, "fileMode": 0o640, "uid": 1000, "gid": 5 },
            { "path": "/dev/sub/disk", "type": "b", "major": 240, "minor": 1 },
            { "path": "/pipe", "type": "p", "fileMode": 0o600 },
        ]),
    );
    set(
        "linux.resources",
        json!({
            "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw" },
                { "allow": true, "type": "b", "major": 240, "access": "r" },
            ],
            "memory": { "limit": 256 << 20, "reservation": 64 << 20, "swap": 320 << 20 },
            "cpu": { "shares": 512, "quota": 80_000, "period": 100_000, "burst": 10_000, "idle": 0 },
            "pids": { "limit": 77 },
            "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }],
            "blockIO": { "weight": 300 },
            "unified": { "memory.high": "209715200", "memory.oom.group": "1" },
        }),
    );
    set(
        "linux.sysctl",
        json!({ "kernel.shm_rmid_forced": "1", "net.ipv4.ip_forward": "1", "kernel.sem": "32 128 2 4" }),
    );
    set(
        "linux.seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
            "syscalls": [
                { "names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 },
                { "names": ["getsid"], "action": "SCMP_ACT_KILL_PROCESS" },
                { "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 78, "args": [
                    { "index": 0, "value": 1000, "op": "SCMP_CMP_GE" },
                    { "index": 1, "value": 0xff, "valueTwo": 0x11, "op": "SCMP_CMP_MASKED_EQ" },
                ]},
            ],
        }),
    );
    set("linux.maskedPaths", json!(["/proc/kcore", "/masked", "/no/such/file"]));
    set("linux.readonlyPaths", json!(["/proc/sys", "/writable", "/no/such/file"]));
    config
}
