//! What the command line says about itself and about a guest.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::host::{self, Snapshot};

#[test]
fn features_are_the_specifications_json() {
    let printed = Stockade::new().run(&["features"]).success().stdout;
    let features: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert_eq!(features["hooks"].as_array().expect("list").len(), 6);
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    let has = |list: &Value, name: &str| list.as_array().expect("list").contains(&name.into());
    assert!(has(&features["mountOptions"], "rro"), "{printed}");
    assert!(has(&features["linux"]["namespaces"], "pid"), "{printed}");
    assert!(has(&features["linux"]["capabilities"], "CAP_SYS_ADMIN"), "{printed}");
}

#[test]
fn every_command_has_completions_and_a_manual_page() {
    let stockade = Stockade::new();
    let pages = tempfile::tempdir().expect("directory");
    let directory = pages.path().join("man1");
    stockade.run(&["man", "--output", text(&directory)]).success();
    let bash = stockade.run(&["completion", "bash"]).success().stdout;
    let zsh = stockade.run(&["completion", "zsh"]).success().stdout;
    let fish = stockade.run(&["completion", "fish"]).success().stdout;
    for command in ["create", "run", "start", "kill", "delete", "state", "spec", "features", "check", "logs"]
    {
        for (script, shell) in [(&bash, "bash"), (&zsh, "zsh"), (&fish, "fish")] {
            assert!(script.contains(command), "no {command} for {shell}");
        }
        let page = fs::read_to_string(directory.join(format!("stockade-{command}.1"))).expect("page");
        for part in [".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLES", &format!("stockade {command}")] {
            assert!(page.contains(part), "{command}: no {part:?} in {page}");
        }
    }
    assert!(fs::read_to_string(directory.join("stockade.1")).expect("page").contains("stockade\\-create(1)"));
    Outcome::of(Command::new("bash").arg("-n"), bash.as_bytes()).success();
    stockade.run(&["completion", "tcsh"]).failure(1, &["tcsh", "bash"]);
}

#[test]
fn what_a_vm_cannot_do_is_refused_by_name() {
    let stockade = Stockade::new();
    for args in [
        &["checkpoint", "--image-path", "images", "--leave-running", "mine"][..],
        &["restore", "--detach", "--image-path", "images", "--work-path", "work", "--bundle", ".", "mine"],
        &["mounts", "add", "mine", "mounts.json"],
    ] {
        stockade.run(args).failure(1, &[args[0], "not supported"]);
    }
}

#[test]
fn spec_rootless_maps_one_user() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&[]);
    fs::remove_file(bundle.path().join("config.json")).expect("remove");
    stockade.run(&["spec", "--rootless", "-b", text(bundle.path())]).success();
    let written = fs::read_to_string(bundle.path().join("config.json")).expect("config.json");
    let config: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(config["linux"]["uidMappings"], json!([{ "containerID": 0, "hostID": 0, "size": 1 }]));
    assert!(!written.contains("gid=5"), "a group that is not mapped: {written}");
    stockade.run(&["spec", "-b", text(bundle.path())]).failure(1, &["config.json", "exists"]);
}

#[test]
fn logs_show_the_running_guests_console_and_a_dead_ones_last_lines() {
    let stockade = Stockade::with_config("kernel_parameters = \"loglevel=7\"\n");
    // In the guest's own PID namespace, reboot(2) resets the machine.
    let bundle = Bundle::busybox(&["/bin/busybox", "reboot", "-f"]).edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "pid");
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_SYS_BOOT"]);
        }
    });
    let before = Snapshot::take();
    let relay = stockade.create(&bundle, "logs");
    let console = stockade.run(&["logs", "logs"]).success().stdout;
    assert!(console.contains("Linux version"), "{console}");
    // The machine may end before the agent has answered.
    stockade.run(&["start", "logs"]);
    host::wait_for_end(relay);
    assert_eq!(stockade.status("logs"), "stopped");
    let last = stockade.run(&["logs", "logs"]).success().stdout;
    assert!(last.ends_with("stockade-vmm: the guest reset its machine\n"), "{last}");
    assert!(last.lines().count() > 1, "no line of the console: {last}");
    stockade.run(&["delete", "logs"]).success();
    before.assert_same_now();
    stockade.run(&["logs", "logs"]).failure(1, &["does not exist"]);
}
