//! Each command on a container in each state gives runc's exit status, and where it fails, runc's key words: engines act
//! on both. The expectations are what runc 1.1.5 says.

use std::fs;

use serde_json::Value;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade};
use stockade_tests::host::{self, Snapshot};

/// A command, its exit status, and words of its error; of its output where it succeeds.
type Case<'a> = (&'a [&'a str], i32, &'a str);

const GONE: &str = "does not exist";
const NOT_RUNNING: &str = "not running";

/// Runs each command with the container's ID in the place of `ID`.
#[track_caller]
fn check(stockade: &Stockade, state: &str, id: &str, cases: &[Case<'_>]) {
    for (args, status, words) in cases {
        let args: Vec<&str> = args.iter().map(|arg| if *arg == "ID" { id } else { arg }).collect();
        let outcome: Outcome = stockade.run(&args);
        println!("{state}: {}", args.join(" "));
        if *status == 0 {
            let outcome = outcome.success();
            assert_eq!(outcome.stderr, "", "a command that succeeds is silent");
            assert!(outcome.stdout.contains(words), "no {words:?} in {outcome:#?}");
        } else {
            outcome.failure(*status, &[words]);
        }
    }
}

const ABSENT: [Case<'_>; 12] = [
    (&["state", "ID"], 1, GONE),
    (&["exec", "ID", "true"], 255, GONE),
    (&["ps", "ID"], 1, GONE),
    (&["events", "--stats", "ID"], 1, GONE),
    (&["update", "--pids-limit", "100", "ID"], 1, GONE),
    (&["pause", "ID"], 1, GONE),
    (&["resume", "ID"], 1, GONE),
    (&["start", "ID"], 1, GONE),
    (&["kill", "ID", "0"], 1, GONE),
    (&["kill", "ID", "KILL"], 1, GONE),
    (&["delete", "ID"], 1, GONE),
    (&["delete", "--force", "ID"], 0, ""),
];

const STOPPED: [Case<'_>; 11] = [
    (&["state", "ID"], 0, "\"stopped\""),
    (&["exec", "ID", "true"], 255, "cannot exec in a stopped container"),
    (&["ps", "ID"], 0, "PID"),
    (&["events", "--stats", "ID"], 1, NOT_RUNNING),
    (&["update", "--pids-limit", "100", "ID"], 1, NOT_RUNNING),
    (&["pause", "ID"], 1, NOT_RUNNING),
    (&["resume", "ID"], 1, "container not paused"),
    (&["start", "ID"], 1, "cannot start a container that has stopped"),
    (&["kill", "ID", "0"], 1, NOT_RUNNING),
    (&["kill", "ID", "KILL"], 1, NOT_RUNNING),
    (&["kill", "--all", "ID", "KILL"], 0, ""),
];

#[test]
fn an_unknown_container_and_one_whose_creator_made_nothing() {
    let stockade = Stockade::new();
    check(&stockade, "unknown", "nobody", &ABSENT);
    for case in ABSENT {
        // runc's delete, too, removes what there is of it and then says that there is none.
        fs::create_dir_all(stockade.root().join("empty")).expect("state directory");
        check(&stockade, "empty", "empty", &[case]);
    }
    assert!(!stockade.root().join("empty").exists());
}

#[test]
fn a_container_from_created_to_stopped_and_one_half_created() {
    let stockade = Stockade::new();
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    let before = Snapshot::take();
    let relay = stockade.create(&bundle, "matrix");
    check(
        &stockade,
        "created",
        "matrix",
        &[
            (&["state", "ID"], 0, "\"created\""),
            (&["exec", "ID", "true"], 0, ""),
            (&["ps", "ID"], 0, "PID"),
            (&["events", "--stats", "ID"], 0, "\"type\":\"stats\""),
            (&["update", "--pids-limit", "100", "ID"], 0, ""),
            (&["resume", "ID"], 1, "container not paused"),
            (&["kill", "ID", "0"], 0, ""),
            (&["pause", "ID"], 0, ""),
            (&["state", "ID"], 0, "\"paused\""),
            (&["resume", "ID"], 0, ""),
            (&["start", "ID"], 0, ""),
            (&["start", "ID"], 1, "cannot start an already running container"),
        ],
    );
    check(
        &stockade,
        "paused",
        "matrix",
        &[
            (&["pause", "ID"], 0, ""),
            (&["state", "ID"], 0, "\"paused\""),
            (&["exec", "ID", "true"], 255, "cannot exec in a paused container"),
            (&["ps", "ID"], 0, "sleep 1000"),
            (&["events", "--stats", "ID"], 0, "\"type\":\"stats\""),
            (&["update", "--pids-limit", "100", "ID"], 0, ""),
            (&["pause", "ID"], 1, NOT_RUNNING),
            (&["start", "ID"], 1, "cannot start a container in the paused state"),
            (&["kill", "ID", "0"], 0, ""),
            (&["delete", "ID"], 1, "that is not stopped"),
            (&["resume", "ID"], 0, ""),
            (&["state", "ID"], 0, "\"running\""),
            (&["delete", "ID"], 1, "that is not stopped"),
            (&["kill", "ID", "KILL"], 0, ""),
        ],
    );
    host::wait_for_end(relay);
    check(&stockade, "stopped", "matrix", &STOPPED);

    // What a creator leaves that dies in the middle.
    let path = stockade.root().join("matrix/state.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).expect("state.json")).expect("JSON");
    assert_eq!(record["complete"], true);
    record["complete"] = false.into();
    fs::write(path, record.to_string()).expect("write");
    check(&stockade, "half created", "matrix", &STOPPED);
    check(&stockade, "half created", "matrix", &[(&["delete", "ID"], 0, "")]);
    before.assert_same_now();
}
