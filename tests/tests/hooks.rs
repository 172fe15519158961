//! `hooks`: who is run when, where, and with what; and what becomes of the container where one fails.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Stockade, text};
use stockade_tests::host::{self, Snapshot};

/// A hook that runs a shell script.
fn hook(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "WHO=hook"] })
}

/// A hook that adds a line to a file: its name, and of the state the status and whether the PID's network namespace
/// is another than the hook's own.
fn recording(name: &str, file: &Path) -> Value {
    hook(&format!(
        "state=$(cat); pid=$(echo \"$state\" | jq .pid); \
         [ \"$(readlink /proc/$pid/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ] && net=same || net=other; \
         echo {name} $WHO $(echo \"$state\" | jq -r '.id, .status') $net >> {}",
        file.display()
    ))
}

#[test]
fn each_is_run_at_its_step_with_the_containers_state() {
    let stockade = Stockade::new();
    let bundle = Bundle::script("cat /mnt/file >> /log; touch /ready; sleep 1000");
    let (log, rootfs) = (bundle.rootfs().join("log"), bundle.rootfs());
    fs::create_dir(rootfs.join("mnt")).expect("directory");
    let in_guest = "grep -q '\"pid\":1,' && echo startContainer $$ $(uname -r) >> /log";
    // Without an environment of its own it has the program's, with the HOME that that gets.
    let of_program = "[ \"$TERM:$HOME\" = xterm:/root ] || exit 3";
    let of_program = json!({ "path": "/bin/sh", "args": ["sh", "-c", of_program] });
    let mount = format!(
        "mount -n -t tmpfs none {0}/mnt && echo mounted > {0}/mnt/file && echo createContainer $(jq .pid) >> {1}",
        rootfs.display(),
        log.display()
    );
    let bundle = bundle.edit(|config| {
        config["hooks"] = json!({
            "prestart": [recording("prestart", &log)],
            "createRuntime": [recording("createRuntime", &log)],
            "createContainer": [hook(&mount)],
            "startContainer": [hook(in_guest), of_program],
            "poststart": [recording("poststart", &log)],
            "poststop": [hook("exit 1"), recording("poststop", &log)],
        });
    });
    let before = Snapshot::take();
    stockade.create(&bundle, "hooked");
    let lines = || fs::read_to_string(&log).expect("log").lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        lines(),
        [
            "prestart hook hooked creating other",
            "createRuntime hook hooked creating other",
            "createContainer 1",
        ]
    );
    assert!(!fs::read_to_string("/proc/self/mounts").expect("mounts").contains("/rootfs/mnt"));
    stockade.run(&["start", "hooked"]).success();
    host::wait_for_file(&rootfs.join("ready"));
    // What is due later does not need the bundle any more.
    fs::remove_file(bundle.path().join("config.json")).expect("remove config.json");
    let deleted = stockade.run(&["delete", "--force", "hooked"]).success();
    assert_eq!(deleted.stderr, "", "a poststop hook that fails is a warning");
    let lines = lines();
    assert!(lines[3].starts_with("startContainer 2 ") && lines[3].ends_with("-stockade"), "{lines:?}");
    let mut rest = lines[4..].to_vec();
    rest.sort();
    assert_eq!(
        rest,
        ["mounted", "poststart hook hooked running other", "poststop hook hooked stopped other"]
    );
    before.assert_same_now();
}

#[test]
fn a_failing_hook_of_create_undoes_the_container() {
    let stockade = Stockade::new();
    let marker = tempfile::NamedTempFile::new().expect("file");
    let before = Snapshot::take();
    let late = json!({ "path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1 });
    for (stage, hook, words) in [
        ("prestart", hook("echo no device >&2; exit 3"), ["hooks.prestart[0]", "exit status 3: no device"]),
        ("createRuntime", json!({ "path": "/no/such/hook" }), ["/no/such/hook", "No such file"]),
        ("createContainer", late, ["hooks.createContainer[0]", "not ended within 1 seconds"]),
    ] {
        let poststop = recording("poststop", marker.path());
        let bundle = Bundle::busybox(&["true"])
            .edit(|config| config["hooks"] = json!({ stage: [hook], "poststop": [poststop] }));
        stockade.run_bundle(&bundle, "failing").failure(1, &words);
    }
    let poststops = fs::read_to_string(marker.path()).expect("read");
    assert_eq!(poststops.lines().count(), 3, "{poststops}");
    before.assert_same_now();
}

#[test]
fn a_failing_hook_of_start_stops_the_container() {
    let stockade = Stockade::new();
    for (stage, property) in
        [("startContainer", "hooks.startContainer[0]"), ("poststart", "hooks.poststart[0]")]
    {
        let bundle = Bundle::busybox(&["sleep", "1000"])
            .edit(|config| config["hooks"] = json!({ stage: [hook("echo no >&2; exit 7")] }));
        let relay = stockade.create(&bundle, stage);
        stockade.run(&["start", stage]).failure(1, &[property, "exit status 7: no"]);
        host::wait_for_end(relay);
        assert_eq!(stockade.status(stage), "stopped");
        stockade.run(&["delete", stage]).success();
    }
}

#[test]
fn a_creator_that_is_killed_in_a_hook_leaves_what_delete_removes() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["true"]);
    let marker = bundle.rootfs().join("marker");
    let script = format!("touch {}; exec sleep 1000", marker.display());
    let bundle = bundle.edit(|config| config["hooks"] = json!({ "createRuntime": [hook(&script)] }));
    let before = Snapshot::take();
    let mut create = stockade
        .command(&["create", "-b", text(bundle.path()), "killed"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("create");
    host::wait_for_file(&marker);
    create.kill().expect("kill");
    create.wait().expect("wait");
    stockade.run(&["delete", "--force", "killed"]).success();
    host::pids_named("sleep").into_iter().for_each(host::wait_for_end);
    before.assert_same_now();
}
