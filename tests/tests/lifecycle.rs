//! The life of a stand-alone container, driven as a person at a shell does.

use std::fs;

use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Stockade, text};
use stockade_tests::host::{self, Snapshot};

#[test]
fn run_returns_the_commands_status_and_output() {
    let stockade = Stockade::new();
    for (script, status) in [("exit 0", 0), ("exit 1", 1), ("exit 42", 42), ("kill -KILL $$; sleep 9", 137)] {
        // The shell must not be PID 1 of its namespace, which its own SIGKILL does not reach.
        let script = format!("exec 2>/dev/null; echo begun; sh -c '{script}'; exit $?");
        let bundle = Bundle::script(&script);
        let before = Snapshot::take();
        let outcome = stockade.run_bundle(&bundle, "status");
        assert_eq!(outcome.status, status, "{outcome:#?}");
        assert_eq!(outcome.stdout, "begun\n");
        assert_eq!(outcome.stderr, "", "a container that ran says nothing on stderr");
        before.assert_same_now();
    }
}

#[test]
fn a_killed_container_exits_with_128_plus_the_signal() {
    let stockade = Stockade::new();
    for (signal, status) in [("KILL", 137), ("TERM", 143), ("SIGUSR1", 138), ("9", 137), ("RTMIN+3", 165)] {
        let bundle = Bundle::busybox(&["/bin/sh", "-c", "echo ready; exec sleep 1000"]).edit(|config| {
            config["linux"]["namespaces"] = serde_json::json!([{ "type": "mount" }, { "type": "network" }])
        });
        let mut child = stockade
            .command(&["run", "--bundle", text(bundle.path()), "killed"])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("run");
        let mut first = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut first).expect("first line");
        stockade.run(&["kill", "killed", signal]).success();
        let outcome = stockade_tests::cli::Outcome::wait(child, "run");
        assert_eq!(outcome.status, status, "{signal}: {outcome:#?}");
    }
}

#[test]
fn create_start_kill_delete() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    let before = Snapshot::take();

    let pid = stockade.create(&bundle, "life");
    let state = stockade.state("life");
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], pid);
    assert_eq!(state["id"], "life");
    assert_eq!(state["bundle"], text(bundle.path()));
    assert_eq!(state["rootfs"], text(&bundle.rootfs()));
    assert!(state["ociVersion"].as_str().expect("ociVersion").starts_with("1."));
    assert!(state["created"].as_str().expect("created").contains('T'));

    stockade.run(&["delete", "--force", "unknown"]).success();
    stockade.run(&["start", "life"]).success();
    assert_eq!(stockade.status("life"), "running");
    stockade.run(&["delete", "life"]).failure(1, &["life", "running"]);
    stockade.run(&["start", "life"]).failure(1, &["cannot start an already running container"]);
    stockade.run(&["kill", "life", "0"]).success();
    stockade.run(&["kill", "life", "KILL"]).success();
    host::wait_for_end(pid);
    let state = stockade.state("life");
    assert_eq!(state["status"], "stopped");
    assert_eq!(state["pid"], 0);
    stockade.run(&["kill", "life", "KILL"]).failure(1, &["container not running"]);
    stockade.run(&["delete", "life"]).success();
    before.assert_same_now();
    stockade.run(&["state", "life"]).failure(1, &["life", "does not exist"]);
    stockade.run(&["delete", "life"]).failure(1, &["life", "does not exist"]);
}

#[test]
fn a_created_container_can_be_deleted_and_a_running_one_by_force() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    let before = Snapshot::take();
    stockade.create(&bundle, "created");
    stockade.run(&["delete", "created"]).success();
    before.assert_same_now();
    stockade.create(&bundle, "running");
    stockade.run(&["start", "running"]).success();
    stockade.run(&["delete", "--force", "running"]).success();
    before.assert_same_now();
}

#[test]
fn options_may_stand_before_or_after_the_id() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["echo", "here"]);
    let before = stockade.run(&["run", "--bundle", text(bundle.path()), "--no-pivot", "order"]).success();
    let after = stockade.run(&["run", "order", "--no-new-keyring", "-b", text(bundle.path())]).success();
    assert_eq!((before.stdout.as_str(), after.stdout.as_str()), ("here\n", "here\n"));
}

#[test]
fn spec_writes_a_config_that_runs() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&[]);
    fs::remove_file(bundle.path().join("config.json")).expect("remove");
    stockade.run(&["spec", "--bundle", text(bundle.path())]).success();
    let text = fs::read_to_string(bundle.path().join("config.json")).expect("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(config["process"]["args"], serde_json::json!(["sh"]));
    assert_eq!(config["process"]["terminal"], true);
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["echo", "from spec"]);
    bundle.raw_config(&config.to_string());
    assert_eq!(stockade.run_bundle(&bundle, "spec").success().stdout, "from spec\n");
}

#[test]
fn version_and_help_speak() {
    let stockade = Stockade::new();
    assert!(stockade.run(&["--version"]).success().stdout.contains("spec: 1."));
    assert!(stockade.run(&["--help"]).success().stdout.contains("create"));
}
