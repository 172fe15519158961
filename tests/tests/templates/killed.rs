//! Builders that are killed, and builders that meet.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade};
use stockade_tests::host;

use super::{
    BEGINS, GROUP, MADE, ON, STORE, age, builders, listed, names, run, stockade, templates,
    wait_for_builders, wanted,
};

fn build(stockade: &Stockade) -> Child {
    let mut command = stockade.command(&["--debug", "template", "build"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn")
}

/// Nothing is left of a builder that was killed, and nothing is used.
#[track_caller]
fn assert_none(when: &str) {
    // Its VMM ends with it.
    host::pids_named("stockade-vmm").into_iter().for_each(host::wait_for_end);
    // The next builder has noted that one was killed.
    let names: Vec<_> = names().into_iter().filter(|name| !name.ends_with(".failed")).collect();
    assert_eq!(names, ["lock"], "{when}");
    let files = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!files.contains("stockade-templates"), "{files}");
}

/// The template is of use, though its builder was killed in the rehearsal of a start; it is removed.
#[track_caller]
fn assert_whole(stockade: &Stockade) {
    host::pids_named("stockade-vmm").into_iter().for_each(host::wait_for_end);
    assert!(run(stockade, "echo fine").stderr.contains(BEGINS), "what is there is whole");
    stockade.run(&["template", "remove", "--all"]).success();
}

#[test]
fn a_builder_that_is_killed_leaves_nothing() {
    let stockade = stockade();
    stockade.run(&["template", "remove", "--all"]).success();
    // After each of its steps: they are lines of its log, of which the last is that the guest is saved.
    let mut steps = 0;
    loop {
        let mut builder = build(&stockade);
        let mut lines = BufReader::new(builder.stderr.take().expect("piped")).lines();
        let line = lines.nth(steps).map(|line| line.expect("a line"));
        builder.kill().expect("kill");
        let status = builder.wait().expect("wait");
        let Some(line) = line else {
            assert!(status.success() || !templates().is_empty(), "{status}");
            break;
        };
        steps += 1;
        if !templates().is_empty() {
            assert!(line.contains("huge pages") || line.contains("starting "), "killed after {line}");
            assert_whole(&stockade);
            break;
        }
        assert_none(&line);
        let _ = fs::remove_dir(GROUP);
    }
    assert!(steps >= 6, "{steps} steps");
    // At any moment.
    stockade.run(&["template", "remove", "--all"]).success();
    let mut seed: u64 = 0x5eed;
    for _ in 0..3 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut builder = build(&stockade);
        std::thread::sleep(Duration::from_millis((seed >> 33) % 7000));
        builder.kill().expect("kill");
        builder.wait().expect("wait");
        if templates().is_empty() { assert_none("at random") } else { assert_whole(&stockade) }
    }
    // The VMM alone.
    let mut builder = build(&stockade);
    let mut log = BufReader::new(builder.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("starting ") {
        line.clear();
        assert_ne!(log.read_line(&mut line).expect("a line"), 0, "no VMM was started");
    }
    let vmm = loop {
        if let Some(vmm) = host::pids_named("stockade-vmm").first() {
            break *vmm;
        }
        assert_eq!(builder.try_wait().expect("wait"), None, "no VMM was started");
    };
    kill(Pid::from_raw(vmm), Signal::SIGKILL).expect("kill");
    let mut rest = String::new();
    log.read_to_string(&mut rest).expect("its log");
    assert!(rest.contains("cannot make a template"), "{rest}");
    assert!(!builder.wait().expect("wait").success());
    assert_eq!(templates(), Vec::<PathBuf>::new());
}

#[test]
fn a_builder_of_a_start_that_is_killed_is_not_tried_again_at_once() {
    let stockade = Stockade::with_config(ON);
    stockade.run(&["template", "remove", "--all"]).success();
    let bundle = Bundle::busybox(&["sleep", "10000"]);
    stockade.create(&bundle, "c");
    let place = wanted(&stockade.run(&["--debug", "start", "c"]).success());
    host::wait_for_text(
        &Path::new(STORE).join("lock"),
        place.file_name().and_then(|name| name.to_str()).expect("a name"),
    );
    for builder in builders() {
        kill(Pid::from_raw(builder), Signal::SIGKILL).expect("kill");
        host::wait_for_end(builder);
    }
    stockade.run(&["delete", "--force", "c"]).success();
    assert_none("after a start");
    // A half of one, as nobody leaves it.
    let half = Path::new(STORE).join(".new");
    fs::create_dir(&half).expect("make");
    fs::write(half.join("about"), "half").expect("write");
    assert!(!run(&stockade, "echo fine").stderr.contains(BEGINS));
    wait_for_builders();
    assert_eq!(templates(), Vec::<PathBuf>::new());
    assert!(!half.exists());
    let failed = listed(&stockade)[0].clone();
    assert_eq!(failed["failed"], "its builder was killed");
    assert!(!run(&stockade, "echo fine").stderr.contains(MADE));
    // Some time later it is.
    let name = failed["name"].as_str().expect("a name");
    age(&Path::new(STORE).join(format!("{name}.failed")));
    assert_eq!(wanted(&run(&stockade, "echo fine")), place);
    wait_for_builders();
    assert!(run(&stockade, "echo fine").stderr.contains(BEGINS));
    stockade.run(&["template", "remove", "--all"]).success();
    // Two who ask for it at once make one.
    let builders = [build(&stockade), build(&stockade)];
    let outcomes = builders.map(|builder| Outcome::wait(builder, "template build").success().stdout);
    let made = outcomes.iter().filter(|stdout| stdout.contains("made")).count();
    let found = outcomes.iter().filter(|stdout| stdout.contains("there already")).count();
    assert_eq!((made, found), (1, 1), "{outcomes:?}");
    assert_eq!(templates(), [place]);
    let shown = stockade.run(&["template", "show", name]).success().stdout;
    assert!(shown.contains("memory 128 MiB"), "{shown}");
    stockade.run(&["template", "remove", "elsewhere"]).failure(1, &["there is no template \"elsewhere\""]);
    stockade.run(&["template", "remove", "--all"]).success();
}
