//! What a process in the container sees of its config.json.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Stockade, text};

/// Runs a script in a container with an edited config; its output.
fn sees(script: &str, edit: impl FnOnce(&mut serde_json::Value)) -> String {
    let bundle = Bundle::script(&format!("exec 2>/dev/null; {script}")).edit(edit);
    let outcome = Stockade::new().run_bundle(&bundle, "sees");
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{script}: {outcome:#?}");
    outcome.stdout
}

/// A line `NAME:\tVALUE` of /proc/self/status.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("{name} in {status}"))
        .trim()
}

#[test]
fn it_runs_under_another_kernel_as_pid_1_with_its_own_hostname() {
    let out = sees("echo $$; hostname; uname -r; cat /proc/1/comm; true", |_| {});
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "1");
    assert_eq!(lines[1], "stockade");
    assert!(lines[2].ends_with("-stockade"), "{out}");
    assert_eq!(lines[3], "sh");
}

#[test]
fn environment_cwd_and_arguments_are_the_configs() {
    let out = sees("pwd; env; echo \"$0\"", |config| {
        config["process"]["cwd"] = "/var/new/directory".into();
        config["process"]["env"] = json!(["PATH=/bin", "GREETING=hello world", "EMPTY="]);
    });
    assert_eq!(out.lines().next(), Some("/var/new/directory"));
    for line in ["PATH=/bin", "GREETING=hello world", "EMPTY=", "HOME=/root"] {
        assert!(out.lines().any(|found| found == line), "{line} in {out}");
    }
}

#[test]
fn credentials_capabilities_and_limits_are_the_configs() {
    let out =
        sees("umask; ulimit -n; ulimit -Hn; cat /proc/self/status; cat /proc/self/oom_score_adj", |config| {
            config["process"]["user"] =
                json!({ "uid": 1000, "gid": 1001, "umask": 0o27, "additionalGids": [5, 77] });
            config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "hard": 512, "soft": 99 }]);
            config["process"]["oomScoreAdj"] = 123.into();
            let set = json!(["CAP_NET_BIND_SERVICE"]);
            config["process"]["capabilities"] = json!({
                "bounding": ["CAP_NET_BIND_SERVICE", "CAP_KILL"], "permitted": set, "effective": set,
                "inheritable": set, "ambient": set,
            });
        });
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(&lines[..3], ["0027", "99", "512"], "{out}");
    assert_eq!(field(&out, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(field(&out, "Gid"), "1001\t1001\t1001\t1001");
    assert_eq!(field(&out, "Groups"), "5 77");
    let bind_service = 1u64 << 10;
    let kill = 1u64 << 5;
    for (set, bits) in [
        ("CapInh", bind_service),
        ("CapPrm", bind_service),
        ("CapEff", bind_service),
        ("CapBnd", bind_service | kill),
        ("CapAmb", bind_service),
    ] {
        assert_eq!(u64::from_str_radix(field(&out, set), 16), Ok(bits), "{set} in {out}");
    }
    assert_eq!(field(&out, "NoNewPrivs"), "1");
    assert_eq!(lines.last(), Some(&"123"));
}

#[test]
fn namespaces_are_new_where_listed_and_the_guests_where_not() {
    let processes = "ls -d /proc/[0-9]* | wc -l";
    let own: u32 = sees(processes, |_| {}).trim().parse().expect("number");
    let shared = sees(&format!("hostname; {processes}"), |config| {
        config["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "network" }]);
        config.as_object_mut().expect("an object").remove("hostname");
    });
    let (name, guests) = shared.trim().split_once('\n').expect("two lines");
    let guests: u32 = guests.trim().parse().expect("number");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("the host's name");
    assert_eq!(name, host.trim(), "the guest has the name of its host");
    assert!(own <= 3 && guests > 10, "own namespace: {own} processes; the guest's: {guests}");
    assert_eq!(sees("cat /proc/self/cgroup", |_| {}), "0::/\n", "the cgroup namespace starts at its cgroup");
}

#[test]
fn cgroup_limits_are_the_configs() {
    let out = sees(
        "cd /sys/fs/cgroup; cat memory.max memory.low pids.max cpu.max cpu.weight; grep -c processor /proc/cpuinfo",
        |config| {
            config["linux"]["resources"] = json!({
                "memory": { "limit": 64 << 20, "reservation": 16 << 20 },
                "pids": { "limit": 55 },
                "cpu": { "quota": 50_000, "period": 200_000, "shares": 1024 },
            });
        },
    );
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..4], ["67108864", "16777216", "55", "50000 200000"]);
    let weight: u32 = lines[4].parse().expect("cpu.weight");
    assert!((1..=10_000).contains(&weight), "{out}");
}

#[test]
fn the_memory_limit_kills_inside_the_guest() {
    // What is only asked for costs nothing, even if it is larger than the VM; what is used counts.
    let bundle = Bundle::script(
        "dd if=/dev/zero of=/dev/null bs=1G count=0 2>/dev/null; echo $?; \
         dd if=/dev/zero of=/dev/null bs=1G count=1 2>/dev/null; echo $?; \
         dd if=/dev/zero of=/dev/shm/file bs=1M count=60 2>/dev/null; echo $?; \
         grep '^oom_kill ' /sys/fs/cgroup/memory.events",
    )
    .edit(|config| {
        config["linux"]["resources"] = json!({ "memory": { "limit": 32 << 20, "swap": 32 << 20 } });
    });
    let outcome = Stockade::new().run_bundle(&bundle, "oom");
    assert_eq!(outcome.stdout, "0\n137\n137\noom_kill 2\n", "{outcome:#?}");
}

#[test]
fn masked_paths_are_empty_and_readonly_paths_refuse_writes() {
    let script = "wc -c < /proc/version; echo x > /proc/sys/kernel/hostname || echo refused";
    let out = sees(script, |config| config["linux"]["maskedPaths"] = json!(["/proc/version"]));
    assert!(out.starts_with("0\n"), "{out}");
    assert!(out.contains("refused"), "{out}");
}

#[test]
fn dev_is_as_the_specification_demands() {
    let out = sees(
        "for n in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$n; done; \
         for n in fd stdin stdout stderr ptmx; do readlink /dev/$n; done; stat -c '%n %t:%T %a' /dev/extra; \
         mknod /tmp/sda b 8 0; cat /tmp/sda || echo denied",
        |config| {
            config["linux"]["devices"] =
                json!([{ "path": "/dev/extra", "type": "c", "major": 1, "minor": 7, "fileMode": 0o640 }]);
            config["linux"]["resources"]["devices"] = json!([
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "b", "major": 8, "minor": 0, "access": "m" },
                { "allow": true, "type": "c", "major": 1, "minor": 7, "access": "rwm" },
            ]);
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
            }
        },
    );
    for line in [
        "/dev/null 1:3 666",
        "/dev/zero 1:5 666",
        "/dev/full 1:7 666",
        "/dev/random 1:8 666",
        "/dev/urandom 1:9 666",
        "/dev/tty 5:0 666",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "pts/ptmx",
        "/dev/extra 1:7 640",
        "denied",
    ] {
        assert!(out.lines().any(|found| found == line), "{line} in {out}");
    }
}

#[test]
fn a_readonly_root_refuses_writes_and_tmpfs_takes_them() {
    let script = "echo a > /file || echo refused; echo b > /tmp/file && cat /tmp/file; \
                  sed -n 1p /etc/passwd; stat -c '%a %N' /etc/sub /etc/sub/link; echo c >> /etc/passwd && echo copied";
    let bundle = Bundle::script(&format!("exec 2>/dev/null; {script}")).edit(|config| {
        config["root"]["readonly"] = true.into();
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        let tmpfs = |destination: &str, options: &[&str]| {
            json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
        };
        mounts.push(tmpfs("/tmp", &["size=1m", "mode=1777"]));
        mounts.push(tmpfs("/etc", &["nosuid", "nodev", "tmpcopyup"]));
    });
    let etc = bundle.rootfs().join("etc");
    std::fs::create_dir(etc.join("sub")).expect("directory");
    std::fs::set_permissions(etc.join("sub"), std::fs::Permissions::from_mode(0o1750)).expect("mode");
    std::os::unix::fs::symlink("/proc/1/root", etc.join("sub/link")).expect("link");
    let outcome = Stockade::new().run_bundle(&bundle, "tmpfs").success();
    assert_eq!(
        outcome.stdout,
        "refused\nb\nroot:x:0:0:root:/root:/bin/sh\n1750 /etc/sub\n777 '/etc/sub/link' -> '/proc/1/root'\ncopied\n"
    );
    assert!(!std::fs::read_to_string(etc.join("passwd")).expect("passwd").contains("\nc\n"));
}

#[test]
fn sysctls_and_domainname_are_set() {
    let out = sees("cat /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/domainname", |config| {
        config["linux"]["sysctl"] = json!({ "kernel.shm_rmid_forced": "1" });
        config["domainname"] = "example.org".into();
    });
    assert_eq!(out, "1\nexample.org\n");
}

#[test]
fn standard_streams_can_be_opened_again() {
    let bundle =
        Bundle::script("echo out > /dev/stdout; echo err > /dev/stderr; read line < /dev/stdin; echo $line")
            .edit(|config| config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    let stockade = Stockade::new();
    let mut command = stockade.command(&["run", "-b", text(bundle.path()), "reopen"]);
    let outcome = stockade_tests::cli::Outcome::of(&mut command, b"input\n");
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\ninput\n", "err\n"), "{outcome:#?}");
}

#[test]
fn what_is_not_applied_yet_is_named_in_the_log_and_on_a_terminal_only() {
    let bundle = Bundle::busybox(&["true"]).edit(|config| {
        config["process"]["apparmorProfile"] = "docker-default".into();
    });
    let stockade = Stockade::new();
    let log = bundle.path().join("log");
    let logged = stockade.run(&["--log", text(&log), "run", "-b", text(bundle.path()), "logged"]).success();
    let piped = stockade.run_bundle(&bundle, "piped").success();
    assert_eq!((logged.stderr.as_str(), piped.stderr.as_str()), ("", ""));
    let log = std::fs::read_to_string(log).expect("log");
    assert!(log.contains("level=warning") && log.contains("process.apparmorProfile"), "{log}");
    let asked = stockade.run(&["--log-level", "warn", "run", "-b", text(bundle.path()), "asked"]).success();
    assert!(asked.stderr.contains("process.apparmorProfile"), "{asked:#?}");
}
