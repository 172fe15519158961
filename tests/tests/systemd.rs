//! `--systemd-cgroup`: scopes instead of directories. `tests/run` boots these in a lab with systemd as PID 1.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use serde_json::json;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, built, text};
use stockade_tests::engine::{IMAGE, Podman};
use stockade_tests::host::{self, Snapshot};

/// Properties of a unit.
fn show(unit: &str) -> HashMap<String, String> {
    let outcome = Outcome::of(Command::new("systemctl").args(["show", unit]), b"").success();
    outcome
        .stdout
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The host, once the bus and systemd have what they keep after their first use.
fn snapshot() -> Snapshot {
    for args in [
        &["busctl", "--quiet", "call", "org.freedesktop.systemd1", "/", "org.freedesktop.DBus.Peer", "Ping"]
            [..],
        &["systemd-run", "--quiet", "--scope", "--unit=first", "true"],
        &["systemctl", "stop", "first.scope"],
    ] {
        // The last fails where the scope has ended by itself.
        Outcome::of(Command::new(args[0]).args(&args[1..]), b"");
    }
    Snapshot::take()
}

/// Units whose names match, whatever their state.
fn units(pattern: &str) -> String {
    let args = ["list-units", "--all", "--no-legend", "--no-pager", pattern];
    Outcome::of(Command::new("systemctl").args(args), b"").success().stdout
}

#[test]
fn a_container_is_a_delegated_scope_with_its_limits_in_the_slice_that_is_named() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]).edit(|config| {
        config["linux"]["cgroupsPath"] = "pods-blue.slice:cri:c1".into();
        config["linux"]["resources"] = json!({ "cpu": { "shares": 2, "cpus": "0", "mems": "0" } });
    });
    let pid_file = bundle.path().join("pid");
    let mut create = stockade.command(&["--systemd-cgroup", "create", "-b", text(bundle.path())]);
    let log = std::fs::File::create(bundle.path().join("log")).expect("log");
    create.args(["--pid-file", text(&pid_file), "scoped"]).stdout(log.try_clone().expect("log")).stderr(log);
    assert!(
        create.status().expect("create").success(),
        "{:?}",
        std::fs::read_to_string(bundle.path().join("log"))
    );
    let relay: i32 = std::fs::read_to_string(pid_file).expect("pid file").parse().expect("pid");

    let cgroup = "/pods.slice/pods-blue.slice/cri-c1.scope";
    assert_eq!(host::cgroup_of(relay).as_deref(), Some(cgroup));
    assert_eq!(host::cgroup_of(stockade.vmm_pid(relay)).as_deref(), Some(cgroup));
    let scope = show("cri-c1.scope");
    for (property, value) in [
        ("ActiveState", "active"),
        ("Slice", "pods-blue.slice"),
        ("ControlGroup", cgroup),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("TasksMax", "infinity"),
        ("CPUWeight", "1"),
        ("AllowedCPUs", "0"),
        ("AllowedMemoryNodes", "0"),
        ("CollectMode", "inactive-or-failed"),
    ] {
        assert_eq!(scope[property], value, "{property}");
    }
    let memory_max: u64 = scope["MemoryMax"].parse().expect("MemoryMax");
    let file = std::fs::read_to_string(format!("/sys/fs/cgroup{cgroup}/memory.max")).expect("memory.max");
    assert_eq!(file.trim().parse(), Ok(memory_max));
    let processes = std::fs::read_to_string(format!("/sys/fs/cgroup{cgroup}/cgroup.procs")).expect("procs");
    assert_eq!(processes.lines().count(), 3, "relay, VMM and its file server: {processes}");

    stockade.run(&["start", "scoped"]).success();
    stockade.run(&["update", "--cpu-share", "262144", "scoped"]).success();
    assert_eq!(show("cri-c1.scope")["CPUWeight"], "10000");
    stockade.run(&["delete", "--force", "scoped"]).success();
    assert!(!std::path::Path::new("/sys/fs/cgroup").join(&cgroup[1..]).exists());
    assert_eq!(units("cri-c1.scope"), "");
}

#[test]
fn run_leaves_nothing_and_may_be_repeated_at_once() {
    let stockade = Stockade::new();
    let bundle = Bundle::script("echo $(cat /proc/self/cgroup)");
    let before = snapshot();
    for _ in 0..2 {
        let outcome = stockade
            .run(&["--cgroup-manager", "systemd", "run", "-b", text(bundle.path()), "again"])
            .success();
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("0::/\n", ""));
        assert_eq!(units("stockade-again.scope"), "");
    }
    before.assert_same_now();
}

#[test]
fn a_creator_that_is_killed_leaves_what_delete_removes() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["true"]);
    let marker = bundle.rootfs().join("marker");
    let script = format!("touch {}; exec sleep 1000", marker.display());
    let bundle = bundle.edit(|config| {
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] });
        config["hooks"] = json!({ "createRuntime": [hook] });
    });
    let before = snapshot();
    let mut create = stockade.command(&["--systemd-cgroup", "create", "-b", text(bundle.path()), "killed"]);
    create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut create = create.spawn().expect("create");
    host::wait_for_file(&marker);
    create.kill().expect("kill");
    create.wait().expect("wait");
    stockade.run(&["delete", "--force", "killed"]).success();
    assert_eq!(units("stockade-killed.scope"), "");
    host::pids_named("sleep").into_iter().for_each(host::wait_for_end);
    before.assert_same_now();
}

#[test]
fn other_paths_and_a_host_without_systemd_are_refused_by_name() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["true"]).edit(|config| config["linux"]["cgroupsPath"] = "/pods/c1".into());
    stockade
        .run(&["--systemd-cgroup", "run", "-b", text(bundle.path()), "path"])
        .failure(1, &["linux.cgroupsPath", "SLICE:PREFIX:NAME"]);
    let script = format!(
        "mount -t tmpfs none /run/systemd && exec {} --root {} --systemd-cgroup run -b {} none",
        built("release/stockade").display(),
        stockade.root().display(),
        bundle.path().display()
    );
    Outcome::of(Command::new("unshare").args(["--mount", "sh", "-c", &script]), b"")
        .failure(1, &["systemd", "cgroupfs"]);
}

#[test]
fn podman_with_its_own_choice_of_cgroups_works() {
    let storage = Podman::new();
    let podman = |args: &[&str]| Outcome::of(&mut storage.command_with_cgroups("systemd", args), b"");
    let run =
        ["run", "-d", "--name", "unit", "--network", "none", "--memory", "200m", IMAGE, "sleep", "1000"];
    let id = podman(&run).success().stdout;
    let unit = format!("libpod-{}.scope", id.trim());
    let scope = show(&unit);
    assert_eq!((scope["ActiveState"].as_str(), scope["Slice"].as_str()), ("active", "machine.slice"));
    podman(&["rm", "-f", "-t", "0", "unit"]).success();
    assert_eq!(units(&unit), "");
    host::pids_named("conmon").into_iter().for_each(host::wait_for_end);
}
