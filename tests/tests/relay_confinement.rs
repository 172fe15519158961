//! What is left to a relay once it serves: it talks to a hostile guest.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use stockade_tests::bundle::{self, Bundle};
use stockade_tests::cli::{Stockade, text};
use stockade_tests::host;
use stockade_tests::netns::{Netns, connect};
use stockade_tests::shell::Shell;

/// The fields of `status` that tell what each thread of a process may do.
fn powers(pid: i32) -> Vec<(String, String)> {
    const FIELDS: [&str; 7] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"];
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("tasks").flatten();
    let mut found: Vec<_> = tasks
        .flat_map(|task| {
            let status = fs::read_to_string(task.path().join("status")).expect("status");
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
                (name.to_owned(), line.unwrap_or_else(|| panic!("no {name}")).to_owned())
            };
            FIELDS.map(field)
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// No power but these capabilities.
#[track_caller]
fn assert_powerless(pid: i32, capabilities: u64) {
    let some = format!("{capabilities:016x}");
    let none = "0".repeat(16);
    let expected = [
        ("CapAmb", none.as_str()),
        ("CapBnd", &some),
        ("CapEff", &some),
        ("CapInh", &none),
        ("CapPrm", &some),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ];
    let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(powers(pid), expected, "process {pid}");
}

/// Nothing of the host's kernel can be written to in its mount namespace.
#[track_caller]
fn assert_no_way_to_the_kernel(pid: i32) {
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("mountinfo");
    for line in mounts.lines() {
        let (mount, file_system) = line.split_once(" - ").expect("mountinfo");
        let options = mount.split(' ').nth(5).expect("options");
        let kind = file_system.split(' ').next().expect("type");
        let is_of_kernel = ["proc", "sysfs", "cgroup2", "debugfs", "securityfs", "bpf"].contains(&kind);
        assert!(!is_of_kernel || options.split(',').any(|option| option == "ro"), "{line}");
    }
    let proc = Path::new("/proc").join(pid.to_string()).join("root/proc");
    if proc.join("1").exists() {
        for sysctl in ["sys/kernel/core_pattern", "sys/kernel/modprobe"] {
            assert_eq!(fs::read(proc.join(sysctl)).expect_err(sysctl).kind(), ErrorKind::NotFound);
        }
        let refused = fs::write(proc.join("1/oom_score_adj"), "0").expect_err("a read-only proc");
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    }
}

#[test]
fn the_relays_of_a_container_and_of_an_exec_are_powerless() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "10000"]);
    let relay = stockade.create(&bundle, "held");
    assert_powerless(relay, 0);
    stockade.run(&["start", "held"]).success();
    let pid_file = bundle.path().join("exec.pid");
    let mut exec = stockade.command(&["exec", "--detach", "--pid-file", text(&pid_file), "held"]);
    let exec = exec.args(["/bin/busybox", "sleep", "10000"]).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(exec.status().expect("stockade exec").success());
    let exec: i32 = fs::read_to_string(&pid_file).expect("pid file").trim().parse().expect("PID");
    assert!(Path::new(&format!("/proc/{relay}/root/proc/stat")).exists(), "podman top reads it");
    for pid in [relay, exec] {
        assert_powerless(pid, 0);
        assert_no_way_to_the_kernel(pid);
    }
    // What is copied there is still the container's.
    fs::write(format!("/proc/{relay}/root/tmp/copied"), "in\n").expect("write through /proc/PID/root");
    let copied = stockade.run(&["exec", "held", "/bin/busybox", "cat", "/tmp/copied"]).success();
    assert_eq!(copied.stdout, "in\n");
    stockade.run(&["delete", "--force", "held"]).success();
}

fn mount_socket(config: &mut Value, source: &str) {
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({ "destination": "/run/served", "source": source, "options": ["bind"] }));
}

#[test]
fn a_pods_relay_is_powerless_while_it_forwards_ports_and_serves_metrics() {
    let directory = bundle::directory();
    let served = directory.path().join("served");
    let _listener = UnixListener::bind(&served).expect("bind");
    let stockade = Stockade::with_config(&format!("host_sockets = [\"{}\"]", served.display()));
    let namespace = Netns::new("confined");
    let before = host::Snapshot::take();
    let mut pod = Shell::start(&stockade, "pod", |config| {
        config["annotations"] = json!({ "io.kubernetes.cri.container-type": "sandbox" });
        namespace.join(config);
        mount_socket(config, text(&served));
    });
    let relay = stockade.state("pod")["pid"].as_i64().expect("PID") as i32;
    pod.ask("mkdir /www; echo page > /www/file");
    pod.ask(
        "httpd -f -h /www -p 127.0.0.1:80 & until wget -q -O /dev/null http://127.0.0.1/file; do :; done",
    );
    let check = || {
        assert_powerless(relay, 0);
        assert_no_way_to_the_kernel(relay);
    };
    // Each connection while it is open: the relay has a thread for it.
    let mut forwarded = namespace.within(|| TcpStream::connect("127.0.0.1:80")).join().expect("thread");
    let forwarded = forwarded.as_mut().expect("connect");
    check();
    forwarded.write_all(b"GET /file HTTP/1.0\r\n\r\n").expect("request");
    let mut page = String::new();
    forwarded.read_to_string(&mut page).expect("answer");
    assert!(page.ends_with("\r\n\r\npage\n"), "{page}");

    let mut scrape = UnixStream::connect(stockade.root().join("pod/metrics.sock")).expect("connect");
    check();
    scrape.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("request");
    let mut metrics = String::new();
    scrape.read_to_string(&mut metrics).expect("answer");
    assert!(metrics.contains("stockade_sandbox_up{sandbox=\"pod\"} 1.0\n"), "{metrics}");
    assert!(metrics.contains("stockade_network_receive_bytes_total{sandbox=\"pod\",interface=\"lo\"}"));

    pod.end();
    before.assert_same_now();
}

#[test]
fn who_watches_a_network_has_but_one_capability_and_one_containers_state() {
    const NET_ADMIN: u64 = 1 << 12;
    let stockade = Stockade::new();
    let (pod, outside) = (Netns::new("pod"), Netns::new("outside"));
    connect(&pod, &outside, 0);
    let before = host::Snapshot::take();
    let bundle = Bundle::busybox(&["sleep", "10000"]).edit(|config| pod.join_as_administrator(config));
    stockade.create(&bundle, "watched");
    stockade.run(&["start", "watched"]).success();
    let is_watcher = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"stockade: network\0"))
    };
    let watchers: Vec<i32> = host::pids_named("stockade").into_iter().filter(is_watcher).collect();
    let [watcher] = watchers[..] else { panic!("{watchers:?}") };
    // It begins to listen when it is confined, and hears of this.
    connect(&pod, &outside, 1);
    let until = "until ip link show net1; do true; done > /dev/null 2>&1";
    stockade.run(&["exec", "watched", "/bin/busybox", "sh", "-c", until]).success();
    assert_powerless(watcher, NET_ADMIN);
    assert_no_way_to_the_kernel(watcher);
    let root = Path::new("/proc").join(watcher.to_string()).join("root");
    let names = |directory: &Path| -> Vec<String> {
        let entries = fs::read_dir(directory).expect("directory").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().expect("name")).collect();
        names.sort();
        names
    };
    let state = stockade.root().join("watched");
    let first = state.components().nth(1).expect("an absolute path").as_os_str().to_str().expect("name");
    let mut expected = ["dev", "proc", first].map(str::to_owned);
    expected.sort();
    assert_eq!(names(&root), expected);
    assert_eq!(names(&root.join("dev")), ["net"]);
    assert_eq!(names(&root.join("dev/net")), ["tun"]);
    assert!(!root.join("proc/sys").exists() && !root.join("proc/stat").exists());
    let inside = root.join(state.strip_prefix("/").expect("an absolute path"));
    assert!(inside.join("state.json").exists());
    assert_eq!(names(inside.parent().expect("parent")), ["watched"]);
    // The record tells what runs as root when the container is deleted.
    for file in [root.join("file"), inside.join("state.json"), inside.join("more")] {
        let refused = fs::write(&file, "").expect_err("a read-only root");
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem, "{}", file.display());
    }
    assert!(inside.join("network/state.json").exists(), "it has remembered the interface");
    stockade.run(&["delete", "--force", "watched"]).success();
    before.assert_same_now();
}
