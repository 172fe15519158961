//! User namespaces: the container's root is somebody else in its guest and on the host, and can do in its own namespaces what
//! a root does.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value, json};
use stockade_tests::bundle::{Bundle, chown_all};
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::host::Snapshot;
use stockade_tests::terminal::Terminal;

/// The host's ID of the container's ID 0.
const FIRST: u32 = 100_000;

/// Gives the container a user namespace in which the IDs 0 to 999 are `FIRST` and those after it, and 1000 is the host's.
fn map(config: &mut Value) {
    config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({ "type": "user" }));
    for list in ["uidMappings", "gidMappings"] {
        config["linux"][list] = json!([
            { "containerID": 0, "hostID": FIRST, "size": 1000 },
            { "containerID": 1000, "hostID": 1000, "size": 1 },
        ]);
    }
}

/// Every capability of a namespace's root.
fn all_capabilities(config: &mut Value) {
    let all: Vec<_> =
        ["SYS_ADMIN", "CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "SETPCAP", "MKNOD", "SYS_TIME"]
            .map(|name| format!("CAP_{name}"))
            .into();
    config["process"]["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all });
}

/// A bundle whose files belong to the container's root.
fn bundle(script: &str, edit: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = Bundle::script(script).edit(|config| {
        map(config);
        edit(config);
    });
    chown_all(&bundle.rootfs(), FIRST);
    bundle
}

#[track_caller]
fn output(script: &str, edit: impl FnOnce(&mut Value)) -> (Bundle, String) {
    let bundle = bundle(&format!("exec 2>&1; {script}"), edit);
    let outcome = Stockade::new().run_bundle(&bundle, "mapped");
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{script}: {outcome:#?}");
    (bundle, outcome.stdout)
}

#[test]
fn ids_are_mapped_inside_and_on_the_host() {
    let (bundle, out) = output(
        "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u; stat -c %u:%g /bin /tmp; \
         touch /tmp/file; chown 7:8 /tmp/file; stat -c %u:%g /tmp/file; chown 5000 /tmp/file || true; \
         cat /proc/self/setgroups; grep CapEff /proc/self/status",
        all_capabilities,
    );
    let maps = format!(" 0 {FIRST} 1000\n 1000 1000 1\n");
    let rest = out.strip_prefix(&format!("{maps}{maps}")).unwrap_or_else(|| panic!("{out}"));
    let lines: Vec<_> = rest.lines().collect();
    assert_eq!(lines[..4], ["0", "0:0", "0:0", "7:8"], "{out}");
    assert!(lines[4].contains("Invalid argument"), "an ID that is not mapped: {out}");
    assert_eq!(lines[5], "allow");
    assert_eq!(lines[6], "CapEff:\t000000000a2001cb");
    let made = fs::metadata(bundle.rootfs().join("tmp/file")).expect("file");
    assert_eq!((made.uid(), made.gid()), (FIRST + 7, FIRST + 8));
}

#[test]
fn its_mounts_and_devices_are_as_without_it() {
    let (_bundle, out) = output(
        "for m in /proc /sys /dev /dev/pts /dev/shm /dev/mqueue /sys/fs/cgroup; do \
             awk -v m=$m '$5 == m { split($0, a, \" - \"); split(a[2], b, \" \"); print m, b[1], $6 }' /proc/self/mountinfo; \
         done; \
         for n in null zero full random urandom tty; do stat -c '%n %t:%T %a %u:%g' /dev/$n; done; \
         stat -c '%n %t:%T %a %u:%g' /dev/own; echo x > /dev/null && head -c 1 /dev/zero | wc -c; \
         mknod /tmp/node c 1 3 || true; cat /proc/version | wc -c; ls /proc/tty | wc -l; echo x > /proc/sys/kernel/hostname || true; \
         hostname; cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_forward; ls /sys/class/net; \
         cat /proc/self/cgroup; ps | wc -l; cat /proc/self/oom_score_adj; ulimit -Hl",
        |config| {
            all_capabilities(config);
            config["linux"]["devices"] = json!([{
                "path": "/dev/own", "type": "c", "major": 1, "minor": 7, "fileMode": 0o640, "uid": 3, "gid": 4
            }]);
            config["linux"]["maskedPaths"] = json!(["/proc/version", "/proc/tty", "/proc/absent"]);
            config["linux"]["sysctl"] = json!({ "kernel.shm_rmid_forced": "1", "net.ipv4.ip_forward": "1" });
            config["process"]["oomScoreAdj"] = json!(-500);
            config["process"]["rlimits"] = json!([
                { "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 },
                { "type": "RLIMIT_MEMLOCK", "hard": 1u64 << 40, "soft": 1u64 << 40 },
            ]);
        },
    );
    let expected = "/proc proc rw,relatime\n/sys sysfs ro,nosuid,nodev,noexec,relatime\n/dev tmpfs rw,nosuid\n\
        /dev/pts devpts rw,nosuid,noexec,relatime\n/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime\n\
        /dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime\n\
        /sys/fs/cgroup cgroup2 ro,nosuid,nodev,noexec,relatime\n\
        /dev/null 1:3 666 0:0\n/dev/zero 1:5 666 0:0\n/dev/full 1:7 666 0:0\n/dev/random 1:8 666 0:0\n\
        /dev/urandom 1:9 666 0:0\n/dev/tty 5:0 666 0:0\n/dev/own 1:7 640 3:4\n1\n\
        mknod: /tmp/node: Operation not permitted\n0\n0\n\
        /bin/sh: can't create /proc/sys/kernel/hostname: Read-only file system\nstockade\n1\n1\nlo\n0::/\n";
    assert!(out.starts_with(expected), "{out}");
    assert!(out.ends_with("\n-500\n1073741824\n"), "{out}");
}

#[test]
fn its_root_is_root_of_its_namespaces_only() {
    let (_bundle, out) = output(
        "mount -t tmpfs none /tmp && stat -f -c %T /tmp; hostname inside && hostname; \
         mkdir /tmp/p && mount -t proc proc /tmp/p && ls /tmp/p/1 > /dev/null && echo proc; \
         mkdir /tmp/s && mount -t sysfs none /tmp/s || true; date -s 2001-01-01 > /dev/null || true; \
         mount -o remount,rw /sys || true",
        |config| {
            all_capabilities(config);
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        },
    );
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..3], ["tmpfs", "inside", "proc"], "{out}");
    assert!(lines[3].contains("permission denied") || lines[3].contains("not permitted"), "{out}");
    assert!(lines[4].contains("Operation not permitted"), "{out}");
    assert!(lines[5].contains("permission denied"), "the guest's sysfs: {out}");
}

#[test]
fn a_user_of_it_has_its_streams_its_terminal_and_a_sealed_root() {
    let script = "id -u; id -g; id -G; echo out > /dev/stdout; read line < /dev/stdin; echo $line; touch /x";
    let edit = |config: &mut Value| {
        config["process"]["user"] = json!({ "uid": 1000, "gid": 5, "additionalGids": [6, 999] });
        config["root"]["readonly"] = true.into();
    };
    let bundle = bundle(script, edit);
    let stockade = Stockade::new();
    let mut command = stockade.command(&["run", "-b", text(bundle.path()), "user"]);
    let outcome = Outcome::of(&mut command, b"input\n");
    assert_eq!(outcome.stdout, "1000\n5\n5 6 999\nout\ninput\n", "{outcome:#?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:#?}");
}

#[test]
fn its_terminal_belongs_to_its_user() {
    let bundle = bundle("tty; stat -c %u:%g $(tty) /dev/console; echo typed > /dev/tty", |config| {
        config["process"]["terminal"] = true.into();
        config["process"]["user"] = json!({ "uid": 7, "gid": 8 });
    });
    let mut terminal = Terminal::open(24, 80);
    let stockade = Stockade::new();
    let mut run =
        terminal.spawn(&mut stockade.command(&["run", "--bundle", text(bundle.path()), "terminal"]));
    terminal.expect("/dev/pts/0\r\n7:5\r\n7:5\r\ntyped\r\n");
    assert!(run.wait().expect("run").success());
}

#[test]
fn what_it_shares_with_the_guest_is_mounted_all_the_same() {
    let (_bundle, out) = output(
        "ls /dev/mqueue; ls -d /sys/fs/cgroup/cgroup.controllers; [ $(ls -d /proc/[0-9]* | wc -l) -gt 10 ] && echo many; \
         ls /sys/kernel > /dev/null && echo sysfs",
        |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces
                .retain(|entry| !["pid", "ipc", "cgroup"].contains(&entry["type"].as_str().expect("type")));
        },
    );
    assert_eq!(out, "/sys/fs/cgroup/cgroup.controllers\nmany\nsysfs\n");
}

#[test]
fn others_enter_it_and_the_host_sees_it() {
    let stockade = Stockade::new();
    let before = Snapshot::take();
    let bundle = bundle("exec sleep 1000", all_capabilities);
    let relay = stockade.create(&bundle, "box");
    let map = fs::read_to_string(format!("/proc/{relay}/uid_map")).expect("uid_map");
    let numbers: Vec<u32> = map.split_whitespace().map(|number| number.parse().expect("number")).collect();
    assert_eq!(numbers, [0, FIRST, 1000, 1000, 1000, 1]);
    // Its program does not run yet.
    let id = stockade.run(&["exec", "--user", "3:4", "box", "sh", "-c", "id -u; id -g"]).success();
    assert_eq!(id.stdout, "3\n4\n");
    stockade.run(&["start", "box"]).success();
    let script = "readlink /proc/self/ns/user; readlink /proc/1/ns/user; id -u; tty; echo > /dev/stdout; \
                  grep CapEff /proc/self/status; touch /tmp/made";
    let exec = stockade.run(&["exec", "box", "sh", "-c", script]).success();
    let lines: Vec<_> = exec.stdout.lines().collect();
    assert_eq!(lines[0], lines[1], "{exec:#?}");
    assert_eq!(lines[2..5], ["0", "not a tty", ""], "{exec:#?}");
    assert_eq!(lines[5], "CapEff:\t000000000a2001cb", "{exec:#?}");
    assert_eq!(fs::metadata(bundle.rootfs().join("tmp/made")).expect("made").uid(), FIRST);
    stockade.run(&["exec", "--user", "5000", "box", "true"]).failure(255, &["process.user.uid", "5000"]);

    // Another container joins it by its path, and so its VM.
    let member =
        Bundle::script("readlink /proc/self/ns/user; tr -s ' ' < /proc/self/uid_map; touch /tmp/member")
            .edit(|config| {
                let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
                namespaces.push(json!({ "type": "user", "path": format!("/proc/{relay}/ns/user") }));
            });
    chown_all(&member.rootfs(), FIRST);
    let outcome = stockade.run_bundle(&member, "member").success();
    assert_eq!(outcome.stdout, format!("{}\n 0 {FIRST} 1000\n 1000 1000 1\n", lines[0]));
    assert_eq!(fs::metadata(member.rootfs().join("tmp/member")).expect("made").uid(), FIRST);
    stockade.run(&["delete", "--force", "box"]).success();
    before.assert_same_now();
}

#[test]
fn its_cgroup_is_its_own_where_it_can_write_it() {
    let (_bundle, out) = output(
        "stat -c '%u:%g %n' /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/memory.max; \
         mkdir /sys/fs/cgroup/below && echo $$ > /sys/fs/cgroup/below/cgroup.procs && cat /proc/self/cgroup",
        |config| config["mounts"][6]["options"] = json!(["nosuid", "noexec", "nodev"]),
    );
    let expected = "0:65534 /sys/fs/cgroup\n0:65534 /sys/fs/cgroup/cgroup.procs\n65534:65534 /sys/fs/cgroup/memory.max\n\
                    0::/below\n";
    assert_eq!(out, expected);
}

#[test]
fn clocks_are_offset_in_a_time_namespace() {
    let uptime = |out: &str| out.split('.').next().expect("number").trim().parse::<u64>().expect("uptime");
    let script = "cut -d' ' -f1 /proc/uptime; cat /proc/self/timens_offsets; exec sleep 1000";
    let edit = |config: &mut Value| {
        config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({ "type": "time" }));
        config["linux"]["timeOffsets"] = json!({
            "boottime": { "secs": 1_000_000, "nanosecs": 5 }, "monotonic": { "secs": 2_000_000 }
        });
    };
    let stockade = Stockade::new();
    for in_user_namespace in [false, true] {
        let script = script.replace("; exec sleep 1000", "");
        let bundle =
            if in_user_namespace { bundle(&script, edit) } else { Bundle::script(&script).edit(edit) };
        let outcome = stockade.run_bundle(&bundle, "late").success();
        assert!((1_000_000..1_001_000).contains(&uptime(&outcome.stdout)), "{outcome:#?}");
        let offsets: Vec<_> = outcome.stdout.split_whitespace().skip(1).collect();
        assert_eq!(offsets, ["monotonic", "2000000", "0", "boottime", "1000000", "5"], "{outcome:#?}");
    }
    let bundle = Bundle::busybox(&["sleep", "1000"]).edit(edit);
    let relay = stockade.create(&bundle, "late");
    for _ in 0..2 {
        let exec = stockade.run(&["exec", "late", "cat", "/proc/uptime"]).success();
        assert!(uptime(&exec.stdout) >= 1_000_000, "{exec:#?}");
        // The second time its program runs; another start fails, which is no matter here.
        stockade.run(&["start", "late"]);
    }
    let member = Bundle::busybox(&["cat", "/proc/uptime"]).edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.push(json!({ "type": "time", "path": format!("/proc/{relay}/ns/time") }));
    });
    let outcome = stockade.run_bundle(&member, "member").success();
    assert!(uptime(&outcome.stdout) >= 1_000_000, "{outcome:#?}");
    stockade.run(&["delete", "--force", "late"]).success();
}

#[test]
fn start_hooks_and_mounts_of_the_host_are_the_namespaces() {
    let host = stockade_tests::bundle::directory();
    fs::write(host.path().join("file"), "kept\n").expect("write");
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let (_bundle, out) = output(
        "cat /tmp/hook; stat -c %u:%g /data/file; (echo x > /data/file) || true; cat /data/file",
        |config| {
            config["mounts"].as_array_mut().expect("mounts").push(json!({
                "destination": "/data", "type": "bind", "source": host.path(), "options": ["rbind", "noatime", "noexec"]
            }));
            config["hooks"] = json!({ "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", "id -u > /tmp/hook"] }] });
        },
    );
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..2], ["0", "65534:65534"], "{out}");
    assert!(lines[2].contains("Permission denied"), "{out}");
    assert_eq!(lines[3], "kept");
}

#[track_caller]
fn refused(edit: impl FnOnce(&mut Value), words: &[&str]) {
    let bundle = Bundle::busybox(&["true"]).edit(|config| {
        map(config);
        edit(config);
    });
    let before = Snapshot::take();
    Stockade::new().run_bundle(&bundle, "refused").failure(1, words);
    before.assert_same_now();
}

#[test]
fn mappings_and_offsets_that_cannot_be_are_named() {
    let only = |id: u32, size: u32| json!([{ "containerID": id, "hostID": id, "size": size }]);
    refused(|c| c["linux"]["uidMappings"] = json!([]), &["linux.uidMappings", "missing"]);
    refused(|c| c["linux"]["gidMappings"] = Value::Null, &["linux.gidMappings", "missing"]);
    refused(|c| c["linux"]["uidMappings"][1]["size"] = json!(0), &["linux.uidMappings[1]", "size 0"]);
    refused(
        |c| c["linux"]["gidMappings"][1]["containerID"] = json!(5),
        &["linux.gidMappings[1]", "overlaps"],
    );
    refused(|c| c["linux"]["uidMappings"] = only(1, 5), &["linux.uidMappings", "ID 0"]);
    refused(|c| c["process"]["user"]["uid"] = json!(2000), &["process.user.uid", "2000"]);
    refused(
        |c| {
            c["process"]["scheduler"] =
                json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_UTIL_CLAMP_MIN"] });
        },
        &["process.scheduler.flags", "CONFIG_UCLAMP_TASK"],
    );
    refused(
        |c| {
            c["linux"]["namespaces"].as_array_mut().expect("namespaces").pop();
        },
        &["linux.uidMappings", "`user`"],
    );
    refused(
        |c| c["linux"]["namespaces"][6]["path"] = "/proc/self/ns/user".into(),
        &["linux.namespaces[6].path", "host's user namespace"],
    );
    refused(
        |c| c["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": 5 } }),
        &["linux.timeOffsets", "`time`"],
    );
    let with_time = |offsets: Value| {
        move |c: &mut Value| {
            c["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({ "type": "time" }));
            c["linux"]["timeOffsets"] = offsets;
        }
    };
    refused(with_time(json!({ "realtime": { "secs": 5 } })), &["linux.timeOffsets.realtime", "boottime"]);
    refused(
        with_time(json!({ "boottime": { "nanosecs": 1_000_000_000 } })),
        &["linux.timeOffsets.boottime.nanosecs"],
    );
    refused(with_time(json!({ "boottime": { "secs": i64::MAX } })), &["linux.timeOffsets"]);
}
