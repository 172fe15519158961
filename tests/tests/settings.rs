//! What a guest's kernel has of the node's settings, what follows its memory, and what its security modules do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::json;
use stockade_tests::bundle::{Bundle, directory};
use stockade_tests::cli::{Stockade, text};
use stockade_tests::netns::Netns;

/// The host's settings, as they are again with the end of the value. The tests of this file run one after the other.
struct Host(Vec<(String, String)>);

impl Host {
    fn set(settings: &[(&str, &str)]) -> Self {
        let mut former = Vec::new();
        for (name, value) in settings {
            let path = format!("/proc/sys/{name}");
            former.push((path.clone(), fs::read_to_string(&path).expect("a setting of the host")));
            fs::write(path, value).expect("change a setting of the host");
        }
        Self(former)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for (path, value) in &self.0 {
            let _ = fs::write(path, value);
        }
    }
}

/// A shell's words that print settings, a line each.
fn show(names: &[&str]) -> String {
    let shown = names.iter().map(|name| format!("echo {name} $(cat /proc/sys/{name})\n"));
    shown.collect()
}

fn lines(settings: &[(&str, &str)]) -> String {
    settings.iter().map(|(name, value)| format!("{name} {value}\n")).collect()
}

#[test]
fn a_guest_has_the_nodes_settings() {
    let settings = [
        ("vm/max_map_count", "262144"),
        ("fs/inotify/max_user_instances", "8192"),
        ("fs/inotify/max_user_watches", "524288"),
        ("fs/aio-max-nr", "1048576"),
        ("fs/protected_regular", "2"),
        // Without a UTS namespace of its own, the container's name is the node's.
        ("kernel/hostname", "node-7"),
        ("kernel/pid_max", "4194304"),
        ("kernel/keys/maxkeys", "2000"),
        ("kernel/core_pattern", "/cores/core.%e"),
        ("net/core/rmem_max", "1000000"),
        ("user/max_time_namespaces", "0"),
    ];
    let _host = Host::set(&settings);
    // Executed by the node's own interpreter, which the image does not have.
    let misc = "/proc/sys/fs/binfmt_misc";
    if !Path::new(misc).join("register").exists() {
        let mounted =
            Command::new("mount").args(["-t", "binfmt_misc", "none", misc]).status().expect("mount");
        assert!(mounted.success());
    }
    let interpreter = directory();
    let program = interpreter.path().join("busybox");
    fs::copy("/bin/busybox", &program).expect("busybox");
    let handler = format!(":stockade-test:M::ZZMAGIC::{}:F", program.display());
    fs::write(Path::new(misc).join("register"), handler).expect("register a handler");

    let names: Vec<&str> = settings.iter().map(|(name, _)| *name).collect();
    let script = format!(
        "{}(ulimit -c unlimited; sh -c 'kill -SEGV $$'); ls /cores\n/echo; echo $?; cat {}; echo $?",
        show(&names),
        program.display()
    );
    let bundle = Bundle::script(&script).edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "uts");
        config.as_object_mut().expect("an object").remove("hostname");
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_CORE", "hard": u64::MAX, "soft": 0 }]);
    });
    fs::create_dir(bundle.rootfs().join("cores")).expect("a directory");
    fs::set_permissions(bundle.rootfs().join("cores"), fs::Permissions::from_mode(0o1777)).expect("chmod");
    fs::write(bundle.rootfs().join("echo"), "ZZMAGIC\n").expect("a program");
    fs::set_permissions(bundle.rootfs().join("echo"), fs::Permissions::from_mode(0o755)).expect("chmod");
    let outcome = Stockade::new().run_bundle(&bundle, "c");
    fs::write(Path::new(misc).join("stockade-test"), "-1").expect("remove the handler");
    // The interpreter executes what it finds named by the file: an echo of nothing.
    let expected = format!("{}core.sh\n\n0\n1\n", lines(&settings));
    assert_eq!(outcome.success().stdout, expected);
}

#[test]
fn a_pattern_that_runs_a_program_runs_nothing() {
    let directory = directory();
    let program = directory.path().join("handler");
    let trace = directory.path().join("trace");
    fs::write(&program, format!("#!/bin/sh\necho ran > {}\n", trace.display())).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    let _host = Host::set(&[("kernel/core_pattern", &format!("|{}", program.display()))]);
    // The image has a program of that name too.
    let bundle = Bundle::script(
        "ulimit -c unlimited; sh -c 'kill -SEGV $$'; echo $?; find / -xdev -name 'core*' -o -name trace",
    )
    .edit(|config| {
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_CORE", "hard": 1 << 30, "soft": 1 << 30 }]);
    });
    let inside = bundle.rootfs().join(program.strip_prefix("/").expect("a path"));
    fs::create_dir_all(inside.parent().expect("a parent")).expect("directories");
    fs::copy(&program, &inside).expect("copy");
    let log = bundle.path().join("log");
    let stockade = Stockade::new();
    let outcome = stockade.run(&["--log", text(&log), "run", "-b", text(bundle.path()), "c"]).success();
    assert_eq!(outcome.stdout, "139\n", "{outcome:#?}");
    assert!(!trace.exists());
    let log = fs::read_to_string(log).expect("log");
    assert!(log.contains("level=warning") && log.contains("core dumps are not kept"), "{log}");
}

#[test]
fn a_guest_has_what_is_set_in_the_network_namespace_and_what_cannot_cross_is_named() {
    let settings = [
        ("net/core/somaxconn", "77"),
        ("net/ipv4/conf/all/arp_announce", "2"),
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/ip_local_port_range", "40000 50000"),
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv4/tcp_keepalive_time", "111"),
        ("net/ipv4/tcp_max_syn_backlog", "3000"),
        ("net/ipv4/conf/eth0/rp_filter", "2"),
        ("net/ipv6/conf/eth0/accept_ra", "0"),
        ("net/ipv4/conf/lo/route_localnet", "1"),
        ("net/ipv4/ipfrag_high_thresh", "8388608"),
        ("net/ipv4/neigh/eth0/gc_stale_time", "99"),
        ("net/ipv6/neigh/eth0/ucast_solicit", "7"),
        ("net/netfilter/nf_conntrack_tcp_timeout_established", "999"),
        ("net/unix/max_dgram_qlen", "88"),
    ];
    let namespace = Netns::new("settings");
    namespace.ip("link add eth0 type veth peer name peer");
    namespace.ip("addr add 10.9.0.2/24 dev eth0");
    namespace.ip("link set eth0 up");
    for (name, value) in settings {
        let (path, value) = (format!("/proc/sys/{name}"), value.to_owned());
        namespace.within(move || fs::write(path, value).expect("set")).join().expect("thread");
    }
    namespace.run("nft add table ip istio");
    namespace.run("nft add chain ip istio divert");
    namespace.run("nft add chain ip istio unused");
    namespace.run("nft add rule ip istio divert counter");
    namespace.ip("link set lo up");
    namespace.ip("addr add 10.99.0.9/32 dev lo");
    namespace.ip("rule add from 10.9.0.2 priority 321 lookup 77");
    let names: Vec<&str> = settings.iter().map(|(name, _)| *name).collect();
    let bundle = Bundle::script(&show(&names)).edit(|config| {
        namespace.join(config);
        // What config.json says comes later, as with other runtimes.
        config["linux"]["sysctl"] = json!({ "net.ipv4.tcp_keepalive_time": "222" });
    });
    let log = bundle.path().join("log");
    let stockade = Stockade::new();
    let outcome = stockade.run(&["--log", text(&log), "run", "-b", text(bundle.path()), "c"]).success();
    assert_eq!(outcome.stdout.replace('\t', " "), lines(&settings).replace("time 111", "time 222"));
    let log = fs::read_to_string(log).expect("log");
    assert!(log.contains("ip istio divert") && !log.contains("istio unused"), "{log}");
    assert!(
        log.contains(
            "have no effect on the pod, whose VM has rules of its own: IPv4 priority 321 (table 77);"
        ),
        "{log}"
    );
    assert!(log.contains("addresses of lo in the network namespace: 10.99.0.9/32;"), "{log}");
}

/// What Linux 6.12 derives when it boots with a GiB: read in a machine of QEMU that did, with this kernel and a shell as its init.
const BOOTED_WITH_A_GIB: [(&str, &str); 16] = include!("booted_with_a_gib.in");

#[test]
fn a_guest_that_grew_is_as_one_that_booted_so_large() {
    let stockade = Stockade::with_config("memory_mib = 256\n");
    let names: Vec<&str> = BOOTED_WITH_A_GIB.iter().map(|(name, _)| *name).collect();
    let bundle = Bundle::busybox(&["sleep", "10000"]).edit(|config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_NET_ADMIN"]);
        }
        let tmpfs = json!({ "destination": "/tmp", "type": "tmpfs", "source": "t" });
        config["mounts"].as_array_mut().expect("mounts").push(tmpfs);
    });
    stockade.create(&bundle, "c");
    stockade.run(&["start", "c"]).success();
    // Larger than all memory: it is there, and whoever uses it is killed by the limit.
    let dd = |count: &str| stockade.run(&["exec", "c", "dd", "if=/dev/zero", "of=/dev/null", "bs=1G", count]);
    dd("count=0").success();
    assert_eq!(dd("count=1").status, 137);
    let events = stockade.run(&["exec", "c", "cat", "/sys/fs/cgroup/memory.events"]).success().stdout;
    assert!(events.contains("oom_kill 1\n"), "{events}");

    // 912 MiB, a 64th of that and 96 MiB are nearly 1024.
    stockade.run(&["update", "--memory", "912m", "c"]).success();
    let shown = stockade.run(&["exec", "c", "sh", "-c", &show(&names)]).success().stdout;
    for ((name, booted), line) in BOOTED_WITH_A_GIB.iter().zip(shown.lines()) {
        let grown = line.trim_start_matches(name).trim();
        for (grown, booted) in grown.split_whitespace().zip(booted.split_whitespace()) {
            let [grown, booted] = [grown, booted].map(|number| number.parse::<f64>().expect("a number"));
            // Those that the node may raise are not lower.
            let raised = name.starts_with("user/") || name.starts_with("fs/") || name.starts_with("kernel/");
            let is_near = (grown / booted - 1.0).abs() <= 0.03 || (raised && grown > booted);
            assert!(is_near, "{name}: {line:?}, and {booted} in one that booted so large");
        }
    }
    let script = "df -k /tmp | tail -n 1; grep MemTotal /proc/meminfo; cat /sys/kernel/mm/transparent_hugepage/enabled";
    let shown = stockade.run(&["exec", "c", "sh", "-c", script]).success().stdout;
    let numbers: Vec<u64> = shown.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(numbers[0], numbers[3] / 2, "{shown}");
    assert!(shown.contains("[madvise]"), "{shown}");
    stockade.run(&["delete", "--force", "c"]).success();
}

#[test]
fn security_modules_confine_what_runs_in_a_guest() {
    let directory = directory();
    let source = directory.path().join("source");
    let profile = "profile stockade-test flags=(attach_disconnected,mediate_deleted) {\n  file,\n  capability,\n  deny /etc/secret rw,\n}\n";
    fs::write(&source, profile).expect("a profile");
    let policy = directory.path().join("policy");
    let compiled = Command::new("apparmor_parser")
        .args(["--skip-kernel-load", "--skip-cache", "--quiet", "--ofile", text(&policy), text(&source)])
        .status()
        .expect("apparmor_parser (package apparmor)");
    assert!(compiled.success());
    let stockade = Stockade::with_config(&format!("memory_mib = 256\napparmor_policies = [{policy:?}]\n"));
    let bundle = Bundle::busybox(&["sleep", "10000"]).edit(|config| {
        config["process"]["apparmorProfile"] = "stockade-test".into();
        config["annotations"] = json!({ "io.stockade.security-labels": "require" });
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_LOG" }],
        });
    });
    fs::write(bundle.rootfs().join("etc/secret"), "secret").expect("a file");
    stockade.create(&bundle, "c");
    stockade.run(&["start", "c"]).success();
    let sh = |script: &str| stockade.run(&["exec", "c", "sh", "-c", script]);
    // Both the init and what joins it.
    let labels = sh("cat /proc/1/attr/current /proc/self/attr/current").success().stdout;
    assert_eq!(labels, "stockade-test (enforce)\nstockade-test (enforce)\n");
    let denied = sh("cat /etc/secret");
    assert!(denied.status == 1 && denied.stderr.contains("Permission denied"), "{denied:#?}");
    assert_eq!(
        sh("cat /etc/passwd > /dev/null; cat /proc/sys/kernel/yama/ptrace_scope").success().stdout,
        "1\n"
    );
    // So is each of several at a time, as an engine runs probes; what confines one belongs to that one.
    thread::scope(|scope| {
        let execs = [(); 4].map(|()| scope.spawn(|| sh("cat /proc/self/attr/current").success().stdout));
        for exec in execs {
            assert_eq!(exec.join().expect("an exec"), "stockade-test (enforce)\n");
        }
    });
    // Logged, and allowed all the same.
    sh("mkdir /tmp/made").success();
    let console = stockade.run(&["logs", "c"]).success().stdout;
    assert!(console.contains("type=1326") && console.contains("comm=\"mkdir\""), "{console}");
    // The kernel takes long to replace a profile, and the others of a pod would wait for each exec.
    assert!(!console.contains("profile_replace"), "{console}");
    // A process may ask for less than its container, and a profile without a policy is refused.
    let exec = |profile: &str| stockade.run(&["exec", "--apparmor", profile, "c", "cat", "/etc/secret"]);
    assert_eq!(exec("unconfined").success().stdout, "secret");
    let refused = exec("no-such-profile");
    assert!(refused.stderr.contains("process.apparmorProfile"), "{refused:#?}");
    stockade.run(&["delete", "--force", "c"]).success();
}

/// Debian's policy knows no containers. It has users who log in: their programs may be anybody's, and change only what is
/// theirs; and a service that lets them in.
const AGENT: &str = "system_u:system_r:sshd_t:s0-s0:c0.c1023";
const LABEL: &str = "user_u:user_r:user_t:s0";
const FILES: &str = "system_u:object_r:bin_t:s0";
const POLICY: &str = "/etc/selinux/default/policy/policy.33";

fn with_selinux(lines: &str) -> Stockade {
    Stockade::with_config(&format!("memory_mib = 256\n[selinux]\nagent = \"{AGENT}\"\n{lines}\n"))
}

#[test]
fn selinux_labels_hold_in_a_guest_with_a_policy() {
    let scratch = "[scratch]\ndefault = \"/:16m,/tmp:16m\"\nmax_mib = 64";
    let stockade = with_selinux(&format!("policy = {POLICY:?}\n{scratch}"));
    let bundle = Bundle::busybox(&["sleep", "10000"]).edit(|config| {
        config["process"]["selinuxLabel"] = LABEL.into();
        config["linux"]["mountLabel"] = FILES.into();
        config["linux"]["maskedPaths"] = json!(["/proc/acpi", "/proc/sys/fs"]);
        config["annotations"] = json!({ "io.stockade.security-labels": "require" });
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(
            json!({ "destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"] }),
        );
    });
    stockade.create(&bundle, "c");
    stockade.run(&["start", "c"]).success();
    let sh = |script: &str| stockade.run(&["exec", "c", "sh", "-c", script]);
    // Both the init and what joins it; their output arrives, although the agent has made the pipes.
    let labels = sh("tr -d '\\0' < /proc/1/attr/current; echo; tr -d '\\0' < /proc/self/attr/current")
        .success()
        .stdout;
    assert_eq!(labels, format!("{LABEL}\n{LABEL}"));
    // As with runc, all file systems of the container have its label, and so have shared files.
    let mounts = sh("cat /proc/mounts").success().stdout;
    for place in ["/", "/tmp", "/dev", "/dev/pts", "/dev/shm", "/scratch", "/proc/sys/fs"] {
        let is_it = |line: &&str| line.split(' ').nth(1) == Some(place);
        let mount = mounts.lines().rfind(is_it).unwrap_or_else(|| panic!("{place}: {mounts}"));
        assert!(mount.contains(&format!("context={FILES}")), "{mount}");
    }
    // Root of the container, and yet denied.
    let denied = sh("cat /etc/passwd > /dev/null && echo changed > /etc/passwd");
    assert!(denied.status != 0 && denied.stderr.contains("Permission denied"), "{denied:#?}");
    // A process may ask for another label than its container, and gets an error for one that is not in the policy.
    let exec = |label: &str, script: &str| {
        stockade.run(&["exec", "--process-label", label, "c", "sh", "-c", script])
    };
    let free = "unconfined_u:unconfined_r:unconfined_t:s0";
    let changed = exec(free, "echo changed > /etc/passwd; tr -d '\\0' < /proc/self/attr/current");
    assert_eq!(changed.success().stdout, free);
    let refused = exec("system_u:system_r:no_such_t:s0", "true");
    assert!(refused.stderr.contains("process.selinuxLabel"), "{refused:#?}");
    // Its output would be lost, because the policy does not let its programs use what the agent has opened.
    let refused = exec("system_u:system_r:getty_t:s0", "true");
    assert!(
        refused.stderr.contains("process.selinuxLabel") && refused.stderr.contains("of a container engine"),
        "{refused:#?}"
    );
    stockade.run(&["delete", "--force", "c"]).success();
}

#[test]
fn a_policy_that_is_not_enforced_denies_nothing() {
    let stockade = with_selinux("policy = \"host\"\nmode = \"permissive\"");
    let script = "echo changed > /etc/passwd && tr -d '\\0' < /proc/self/attr/current";
    let bundle = Bundle::script(script).edit(|config| {
        config["process"]["selinuxLabel"] = LABEL.into();
        config["linux"]["mountLabel"] = FILES.into();
    });
    assert_eq!(stockade.run_bundle(&bundle, "c").success().stdout, LABEL);
}

#[test]
fn what_is_not_a_policy_for_the_guest_is_named_in_a_line() {
    let directory = directory();
    let file = directory.path().join("policy");
    fs::write(&file, "no policy").expect("a file");
    let good = fs::read(POLICY).expect("selinux-policy-default");
    let cut = directory.path().join("cut");
    fs::write(&cut, &good[..good.len() / 2]).expect("a file");
    let missing = directory.path().join("missing");
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let large = directory.path().join("large");
    fs::File::create(&large).and_then(|file| file.set_len(1 << 40)).expect("a file");
    let bundle = Bundle::script("true");
    let cases = [
        (&file, "it is not a binary SELinux policy"),
        (&missing, "No such file or directory"),
        (&fifo, "it is not a regular file"),
        (&directory.path().to_owned(), "it is not a regular file"),
        (&large, "it has more than"),
        (&cut, "the guest's kernel, which knows versions up to 33, refuses it"),
    ];
    for (policy, expected) in cases {
        let stockade = with_selinux(&format!("policy = {:?}", text(policy)));
        let failed = stockade.run_bundle(&bundle, "c");
        let lines = failed.stderr.trim_end().lines().count();
        assert!(failed.status != 0 && failed.stderr.contains(expected) && lines == 1, "{failed:#?}");
    }
    // A guest without SELinux: the administrator has chosen other modules.
    let lsm =
        format!("memory_mib = 256\nkernel_parameters = \"lsm=landlock\"\n[selinux]\npolicy = {POLICY:?}\n");
    let failed = Stockade::with_config(&lsm).run_bundle(&bundle, "c");
    assert!(failed.status != 0 && failed.stderr.contains("`lsm=` in kernel_parameters"), "{failed:#?}");
}
