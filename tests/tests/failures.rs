//! Processes that die at the wrong moment.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::host::{self, Snapshot};

fn kill(pid: i32) {
    // SAFETY: kill takes two integers.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0, "kill {pid}");
}

#[test]
fn a_dead_vmm_ends_the_container_with_137() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    let before = Snapshot::take();
    let relay = stockade.create(&bundle, "vmm");
    stockade.run(&["start", "vmm"]).success();
    kill(stockade.vmm_pid(relay));
    host::wait_for_end(relay);
    assert_eq!(stockade.status("vmm"), "stopped");
    stockade.run(&["kill", "vmm", "KILL"]).failure(1, &["container not running"]);
    stockade.run(&["delete", "--force", "vmm"]).success();
    before.assert_same_now();
}

#[test]
fn run_reports_a_vmm_that_dies() {
    let stockade = Stockade::new();
    let bundle = Bundle::script("echo up; exec sleep 1000");
    let mut child = stockade
        .command(&["run", "-b", text(bundle.path()), "reported"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut [0; 3]).expect("read");
    let vmm = host::pids_named("stockade-vmm");
    assert_eq!(vmm.len(), 1);
    kill(vmm[0]);
    Outcome::wait(child, "run").failure(137, &["the VM has ended", "died without a message"]);
}

/// A host that cannot keep what `core_scheduling` promises does not start the VM.
#[test]
fn core_scheduling_is_had_or_refused() {
    // PR_SCHED_CORE, to read one's own cookie: EINVAL without CONFIG_SCHED_CORE, ENODEV without threads of cores.
    let mut cookie = 0u64;
    // SAFETY: the kernel writes one u64, which `cookie` is.
    let read = unsafe { libc::prctl(62, 0, 0, 0, &raw mut cookie) };
    let is_missing = read != 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
    let stockade = Stockade::with_config("memory_mib = 128\ncore_scheduling = true");
    let bundle = Bundle::busybox(&["true"]);
    let before = Snapshot::take();
    let outcome = stockade.run(&["run", "-b", text(bundle.path()), "core"]);
    if is_missing {
        outcome.failure(1, &["core_scheduling", "CONFIG_SCHED_CORE"]);
    } else {
        outcome.success();
    }
    before.assert_same_now();
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: kill takes two integers.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "signal {signal} to {pid}");
}

/// What no command may take, whatever a guest does.
const SOON: Duration = Duration::from_secs(15);

#[track_caller]
fn soon(stockade: &Stockade, args: &[&str]) -> Outcome {
    let began = Instant::now();
    let outcome = stockade.run(args);
    assert!(began.elapsed() < SOON, "{args:?} took {:?}: {outcome:#?}", began.elapsed());
    outcome
}

/// A VM that stands still, as to the host one whose guest says nothing or too little does.
#[test]
fn nobody_waits_for_a_guest_that_does_not_answer() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    let before = Snapshot::take();
    let relay = stockade.create(&bundle, "mute");
    stockade.run(&["start", "mute"]).success();
    let vmm = stockade.vmm_pid(relay);
    signal(vmm, libc::SIGSTOP);
    let began = Instant::now();
    assert_eq!(stockade.state("mute")["status"], "running");
    let listed = stockade.run(&["list", "--format", "json"]).success().stdout;
    assert!(listed.contains("\"status\":\"running\""), "{listed}");
    assert!(began.elapsed() < Duration::from_secs(10), "they ask no guest: {:?}", began.elapsed());
    assert!(soon(&stockade, &["list"]).success().stdout.contains("running (no answer)"));
    let ps = soon(&stockade, &["ps", "mute"]);
    ps.failure(1, &["does not answer"]);
    soon(&stockade, &["exec", "mute", "true"]).failure(255, &["does not answer"]);
    soon(&stockade, &["kill", "mute", "TERM"]).failure(1, &["does not answer"]);
    soon(&stockade, &["pause", "mute"]).failure(1, &["does not answer"]);
    soon(&stockade, &["delete", "mute"]).failure(1, &["running"]);
    soon(&stockade, &["kill", "mute", "KILL"]).success();
    host::wait_for_end(relay);
    host::wait_for_end(vmm);
    assert_eq!(stockade.status("mute"), "stopped");
    soon(&stockade, &["delete", "mute"]).success();
    before.assert_same_now();

    let relay = stockade.create(&bundle, "mute");
    signal(stockade.vmm_pid(relay), libc::SIGSTOP);
    // One that waits for the guest does not keep the other from deleting.
    let starting = stockade.command(&["start", "mute"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let starting = starting.expect("start");
    soon(&stockade, &["delete", "--force", "mute"]).success();
    Outcome::wait(starting, "start").failure(1, &[]);
    before.assert_same_now();
}

#[test]
fn a_member_of_a_guest_that_does_not_answer_is_killed_and_deleted() {
    let stockade = Stockade::new();
    let pod = Bundle::busybox(&["sleep", "1000"]);
    let member = Bundle::busybox(&["sleep", "1000"]).edit(|config| {
        config["annotations"] = serde_json::json!({
            "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pod",
        });
    });
    let before = Snapshot::take();
    let sandbox = stockade.create(&pod, "pod");
    stockade.run(&["start", "pod"]).success();
    let vmm = stockade.vmm_pid(sandbox);
    for id in ["killed", "deleted"] {
        stockade.create(&member, id);
        stockade.run(&["start", id]).success();
    }
    signal(vmm, libc::SIGSTOP);
    soon(&stockade, &["kill", "killed", "KILL"]).success();
    assert_eq!(stockade.status("killed"), "stopped");
    soon(&stockade, &["delete", "killed"]).success();
    soon(&stockade, &["delete", "--force", "deleted"]).success();
    soon(&stockade, &["create", "--bundle", text(member.path()), "late"]).failure(1, &["does not answer"]);
    let left = stockade.run(&["list", "--quiet"]).success().stdout;
    assert_eq!(left, "pod\n");
    soon(&stockade, &["delete", "--force", "pod"]).success();
    host::wait_for_end(vmm);
    before.assert_same_now();
}

/// Kills `create` itself at its n-th system call, for many n, as an engine does that gives up: whoever looks next finds nothing
/// of the container, and neither does who deletes it.
#[test]
fn a_create_that_is_killed_anywhere_leaves_nothing() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    let before = Snapshot::take();
    for (call, n) in [
        ("clone3", 1),
        ("clone3", 2),
        ("bind", 1),
        ("bind", 2),
        ("mkdir", 2),
        ("sendmsg", 1),
        ("recvmsg", 1),
        ("recvmsg", 2),
        ("rename", 1),
        ("rename", 2),
        ("connect", 1),
        ("connect", 3),
        ("poll", 1),
        ("poll", 4),
        ("exit_group", 1),
    ] {
        let inject = format!("inject={call}:signal=KILL:when={n}");
        let create = stockade.command(&["create", "-b", text(bundle.path()), "torn"]);
        let mut traced = std::process::Command::new("strace");
        traced.args(["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
        traced.arg(create.get_program()).args(create.get_args());
        let status =
            traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("strace");
        // strace ends as what it has traced.
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{call} {n} was not reached: {status}");
        let state = stockade.run(&["state", "torn"]);
        assert!(
            !state.stdout.contains("creating"),
            "nobody creates it any more, after {call} {n}: {state:#?}"
        );
        // The last thing that it does: the container lives.
        if call == "exit_group" {
            assert_eq!(stockade.status("torn"), "created");
            stockade.run(&["delete", "--force", "torn"]).success();
        } else {
            assert_eq!(stockade.run(&["list", "--quiet"]).success().stdout, "", "after {call} {n}");
        }
        before.assert_same_now();
        stockade.run(&["delete", "--force", "torn"]).success();
    }
}
