//! Bad input: one clear line, the right status, nothing left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, built, text};
use stockade_tests::host::Snapshot;

/// `run` of a bundle fails with this status and one line that has these words, and leaves nothing.
#[track_caller]
fn refused(bundle: &Bundle, status: i32, words: &[&str]) {
    let stockade = Stockade::new();
    let before = Snapshot::take();
    stockade.run_bundle(bundle, "refused").failure(status, words);
    before.assert_same_now();
}

#[track_caller]
fn refused_edit(edit: impl FnOnce(&mut Value), words: &[&str]) {
    println!("a config that is refused for {words:?}");
    refused(&Bundle::busybox(&["true"]).edit(edit), 1, words);
}

#[test]
fn a_config_that_is_missing_or_malformed() {
    let bundle = Bundle::busybox(&["true"]);
    fs::remove_file(bundle.path().join("config.json")).expect("remove");
    refused(&bundle, 1, &["config.json", "No such file"]);
    bundle.raw_config("{ \"ociVersion\": ");
    refused(&bundle, 1, &["config.json", "line 1"]);
    bundle.raw_config("[]");
    refused(&bundle, 1, &["config.json"]);
}

#[test]
fn a_value_that_cannot_be_names_its_path() {
    refused_edit(|c| c["ociVersion"] = "2.0.0".into(), &["ociVersion", "2.0.0"]);
    refused_edit(|c| c["process"]["args"] = json!([]), &["process.args"]);
    refused_edit(|c| c["process"]["cwd"] = "relative".into(), &["process.cwd", "relative"]);
    refused_edit(
        |c| c["process"]["rlimits"][0]["type"] = "RLIMIT_X".into(),
        &["process.rlimits", "RLIMIT_X"],
    );
    refused_edit(|c| c["mounts"][1]["destination"] = "".into(), &["mounts[1].destination"]);
    refused_edit(
        |c| c["linux"]["resources"]["memory"] = json!({ "limit": 4096 }),
        &["memory limit is too small"],
    );
    refused_edit(|c| c["root"]["path"] = "nowhere".into(), &["root.path", "nowhere"]);
    refused_edit(
        |c| {
            c["mounts"].as_array_mut().expect("mounts").push(
                json!({ "destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"] }),
            );
        },
        &["/no/such/source"],
    );
}

#[test]
fn an_executable_that_is_not_there_or_not_executable() {
    refused(
        &Bundle::busybox(&["no-such-command"]),
        1,
        &["no-such-command", "executable file not found in $PATH"],
    );
    refused(&Bundle::busybox(&["/no/such/file"]), 1, &["/no/such/file", "no such file or directory"]);
    let bundle = Bundle::busybox(&["/tmp/data"]);
    fs::write(bundle.rootfs().join("tmp/data"), "data").expect("write");
    fs::set_permissions(bundle.rootfs().join("tmp/data"), fs::Permissions::from_mode(0o644)).expect("chmod");
    refused(&bundle, 1, &["/tmp/data", "permission denied"]);
}

#[test]
fn an_id_that_cannot_be_or_is_taken() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    for id in ["a/b", "..", "", "white space"] {
        stockade.run(&["run", "-b", text(bundle.path()), id]).failure(1, &["container ID"]);
    }
    stockade.create(&bundle, "taken");
    let before = Snapshot::take();
    stockade.run_bundle(&bundle, "taken").failure(1, &["taken", "exists"]);
    before.assert_same_now();
    assert_eq!(stockade.status("taken"), "created", "the first is untouched");
    stockade.run(&["delete", "--force", "taken"]).success();
}

#[test]
fn an_unknown_command_and_a_bad_option() {
    let stockade = Stockade::new();
    let outcome = stockade.run(&["frobnicate"]);
    assert_ne!(outcome.status, 0);
    assert!(outcome.stderr.contains("frobnicate"), "{outcome:#?}");
    let outcome = stockade.run(&["run", "--frobnicate", "id"]);
    assert!(outcome.status != 0 && outcome.stderr.contains("--frobnicate"), "{outcome:#?}");
}

#[test]
fn errors_go_to_the_log_in_the_format_asked_for() {
    let bundle = Bundle::busybox(&["no-such-command"]);
    let stockade = Stockade::new();
    let log = bundle.path().join("log.json");
    let args = ["--log", text(&log), "--log-format", "json", "run", "-b", text(bundle.path()), "logged"];
    stockade.run(&args).failure(1, &["executable file not found in $PATH"]);
    let lines = fs::read_to_string(&log).expect("log");
    let line: Value = serde_json::from_str(lines.lines().last().expect("a line")).expect("JSON");
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().expect("msg").contains("executable file not found in $PATH"));
    assert!(line["time"].as_str().expect("time").contains('T'));
    // Pods may share a file.
    assert_eq!((&line["container"], &line["sandbox"]), (&"logged".into(), &"logged".into()));
}

/// Runs in a mount namespace of its own where `file` stands at /dev/kvm.
fn with_kvm(file: &str, bundle: &Bundle) -> Outcome {
    let stockade = Stockade::new();
    let script = format!(
        "mount -n --bind {file} /dev/kvm && exec {} --root {} run -b {} no-kvm",
        text(&built("release/stockade")),
        text(&stockade.root()),
        text(bundle.path())
    );
    Outcome::of(Command::new("unshare").args(["--mount", "sh", "-c", &script]), b"")
}

#[test]
fn no_kvm() {
    let bundle = Bundle::busybox(&["true"]);
    let before = Snapshot::take();
    with_kvm("/dev/null", &bundle).failure(1, &["/dev/kvm", "stockade check"]);
    before.assert_same_now();
    let script = format!("mount -n -t tmpfs none /dev && exec {} check", text(&built("release/stockade")));
    let outcome = Outcome::of(Command::new("unshare").args(["--mount", "sh", "-c", &script]), b"");
    assert_eq!(outcome.status, 1, "{outcome:#?}");
    assert!(outcome.stdout.contains("/dev/kvm"), "{outcome:#?}");
}

/// `run` with a configuration of its own fails with one line and leaves nothing.
#[track_caller]
fn refused_by_configuration(config: &str, words: &[&str]) {
    let stockade = Stockade::with_config(config);
    let bundle = Bundle::busybox(&["true"]);
    let before = Snapshot::take();
    let outcome = stockade.run_bundle(&bundle, "boot");
    assert_eq!(outcome.status, 1, "{outcome:#?}");
    for word in words {
        assert!(outcome.stderr.contains(word), "stderr lacks {word:?}: {outcome:#?}");
    }
    before.assert_same_now();
}

#[test]
fn a_kernel_that_is_none() {
    refused_by_configuration("kernel = \"/bin/busybox\"", &["/bin/busybox", "kernel"]);
    refused_by_configuration("kernel = \"/etc/passwd\"", &["/etc/passwd", "kernel"]);
    refused_by_configuration("kernel = \"/no/such/kernel\"", &["/no/such/kernel", "No such file"]);
    refused_by_configuration("kernle = \"/boot/vmlinux\"", &["kernle", "kernel"]);
}

#[test]
fn an_agent_that_never_answers_shows_the_stage_and_the_console() {
    let directory = tempfile::tempdir().expect("directory");
    let initramfs = directory.path().join("initramfs");
    // An init that says something and then never answers: busybox as cat of an endless stream.
    let script = "mkdir -p r/dev && cp /bin/busybox r/busybox && mknod r/dev/console c 5 1 && \
                  printf '#!/busybox sh\\necho the init is stuck > /dev/console\\nexec /busybox sleep 100000\\n' > r/init && \
                  chmod +x r/init && cd r && find . | cpio -o -H newc --quiet > ../initramfs";
    let made = Command::new("sh").args(["-c", script]).current_dir(directory.path()).status().expect("sh");
    assert!(made.success());
    refused_by_configuration(
        &format!("initramfs = {:?}", text(&initramfs)),
        &["agent", "the init is stuck", "the guest kernel had found its devices", "its CPU is at 0xffffffff"],
    );
}

#[test]
fn no_memory_for_the_vm() {
    refused_by_configuration("memory_mib = 3", &["memory"]);
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["true"]);
    let before = Snapshot::take();
    let script = format!(
        "ulimit -v 1000000 && exec {} --root {} run -b {} no-memory",
        text(&built("release/stockade")),
        text(&stockade.root()),
        text(bundle.path())
    );
    Outcome::of(Command::new("sh").args(["-c", &script]), b"").failure(1, &["2048 MiB", "RLIMIT_AS"]);
    before.assert_same_now();
}
