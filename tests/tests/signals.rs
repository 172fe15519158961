//! Signals: every one of them, to PID 1 and to all, to a created container, and who reaps.

use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::host;

/// How long a line of a container may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How long to wait for what must not come.
const QUIET: Duration = Duration::from_millis(500);

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    receiver
}

#[test]
fn every_signal_arrives() {
    // libc keeps 32 and 33 for itself, and a shell 17, its children's.
    let trapped: Vec<i32> = (1..=64).filter(|signal| ![9, 17, 19, 32, 33].contains(signal)).collect();
    let traps: String = trapped.iter().map(|signal| format!("trap 'echo got {signal}' {signal}; ")).collect();
    let bundle = Bundle::script(&format!(
        "{traps} (trap 'echo child' USR1; sleep 1000 & while :; do wait $!; done) & \
         sleep 1000 & echo ready; while :; do wait $!; done"
    ));
    let stockade = Stockade::new();
    let mut run = stockade
        .command(&["run", "--bundle", text(bundle.path()), "signals"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let lines = lines(run.stdout.take().expect("piped"));
    let next = || lines.recv_timeout(LIMIT).expect("a line of the container");
    assert_eq!(next(), "ready");
    let relay = stockade.state("signals")["pid"].as_i64().expect("pid") as i32;
    for signal in trapped {
        // SAFETY: kill takes two integers.
        assert_eq!(unsafe { libc::kill(relay, signal) }, 0);
        assert_eq!(next(), format!("got {signal}"));
    }
    for (name, signal) in [("USR1", 10), ("SIGUSR2", 12), ("sigrtmin+3", 37), ("RTMAX-1", 63), ("40", 40)] {
        stockade.run(&["kill", "signals", name]).success();
        assert_eq!(next(), format!("got {signal}"));
    }
    stockade.run(&["kill", "signals", "STOP"]).success();
    stockade.run(&["kill", "signals", "USR1"]).success();
    assert!(lines.recv_timeout(QUIET).is_err(), "PID 1 is stopped");
    stockade.run(&["kill", "signals", "CONT"]).success();
    let mut both = [next(), next()];
    both.sort();
    assert_eq!(both, ["got 10", "got 18"]);
    stockade.run(&["kill", "--all", "signals", "USR1"]).success();
    let mut both = [next(), next()];
    both.sort();
    assert_eq!(both, ["child", "got 10"]);
    stockade.run(&["kill", "signals", "SIGNOTHING"]).failure(1, &["SIGNOTHING"]);
    stockade.run(&["kill", "signals", "65"]).failure(1, &["65"]);
    stockade.run(&["kill", "signals", "KILL"]).success();
    drop(lines);
    assert_eq!(run.wait().expect("wait").code(), Some(137));
}

#[test]
fn pid_1_ignores_what_it_has_no_handler_for_once_it_runs() {
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    let stockade = Stockade::new();
    let relay = stockade.create(&bundle, "first");
    stockade.run(&["kill", "--regex", "^fir.t$", "0"]).success();
    stockade.run(&["kill", "--regex", "(", "0"]).failure(1, &["--regex", "regular expression"]);
    stockade.run(&["kill", "--regex", "^other"]).success();
    stockade.run(&["kill", "first", "WINCH"]).success();
    assert_eq!(stockade.status("first"), "created");
    stockade.run(&["kill", "first", "TERM"]).success();
    host::wait_for_end(relay);
    assert_eq!(stockade.status("first"), "stopped");
    stockade.run(&["start", "first"]).failure(1, &["stopped"]);
    stockade.run(&["kill", "first"]).failure(1, &["container not running"]);
    stockade.run(&["kill", "--all", "first", "KILL"]).success();
    stockade.run(&["delete", "first"]).success();

    let relay = stockade.create(&bundle, "second");
    stockade.run(&["start", "second"]).success();
    stockade.run(&["kill", "second", "TERM"]).success();
    stockade.run(&["kill", "second", "RTMIN"]).success();
    // The agent serves in order: had they ended it, this would say so.
    stockade.run(&["kill", "second", "0"]).success();
    assert_eq!(stockade.status("second"), "running");
    stockade.run(&["kill", "second", "9"]).success();
    host::wait_for_end(relay);
    assert_eq!(stockade.status("second"), "stopped");
    stockade.run(&["delete", "--regex", "secon."]).success();
    stockade.run(&["state", "second"]).failure(1, &["does not exist"]);
}

#[test]
fn orphans_of_a_container_without_a_pid_namespace_are_reaped() {
    let script =
        "sh -c 'sleep 0.2 & sleep 0.1 &'; sleep 0.5; grep -l 'State:.Z' /proc/[0-9]*/status; echo $$";
    let bundle = Bundle::script(script).edit(|config| {
        config["linux"]["namespaces"] = serde_json::json!([{ "type": "mount" }, { "type": "network" }]);
    });
    let stockade = Stockade::new();
    let mut command = stockade.command(&["run", "-b", text(bundle.path()), "orphans"]);
    let outcome = Outcome::of(&mut command, b"").success();
    let pid: u32 = outcome.stdout.trim().parse().unwrap_or_else(|_| panic!("zombies: {outcome:#?}"));
    assert_ne!(pid, 1, "the agent is that");
}
