//! Standard streams: every byte, both ways, to their end.

use std::io::Read;
use std::process::Stdio;

use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::host::Snapshot;

#[test]
fn stdout_and_stderr_stay_apart() {
    let bundle = Bundle::script("echo to out; echo to err >&2");
    let outcome = Stockade::new().run_bundle(&bundle, "apart").success();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("to out\n", "to err\n"));
}

#[test]
fn stdin_arrives_whole_and_ends() {
    let bundle = Bundle::busybox(&["md5sum"]);
    let stockade = Stockade::new();
    let input: Vec<u8> =
        (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut command = stockade.command(&["run", "-b", text(bundle.path()), "stdin"]);
    let inside = Outcome::of(&mut command, &input).success();
    let outside = Outcome::of(std::process::Command::new("md5sum").arg("-"), &input).success();
    assert_eq!(inside.stdout, outside.stdout);
}

#[test]
fn an_empty_stdin_is_at_its_end() {
    let bundle = Bundle::script("cat; echo ended");
    assert_eq!(Stockade::new().run_bundle(&bundle, "eof").success().stdout, "ended\n");
}

#[test]
fn a_gibibyte_written_just_before_the_exit_arrives() {
    const BYTES: u64 = 1 << 30;
    let bundle = Bundle::busybox(&["dd", "if=/dev/zero", "bs=1M", "count=1024"]);
    let stockade = Stockade::new();
    let mut child = stockade
        .command(&["run", "-b", text(bundle.path()), "flood"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("run");
    let mut stdout = child.stdout.take().expect("piped");
    let (mut buffer, zeroes) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut total = 0;
    loop {
        match stdout.read(&mut buffer).expect("read") {
            0 => break,
            n => {
                assert!(buffer[..n] == zeroes[..n], "only zeroes were sent");
                total += n as u64;
            }
        }
    }
    let status = child.wait().expect("wait");
    assert_eq!((total, status.code()), (BYTES, Some(0)));
}

#[test]
fn binary_output_is_not_changed() {
    let bundle = Bundle::script("for i in $(seq 0 255); do printf \"\\\\x$(printf %02x $i)\"; done | md5sum");
    let outcome = Stockade::new().run_bundle(&bundle, "binary").success();
    let bytes: Vec<u8> = (0..=255).collect();
    let outside = Outcome::of(std::process::Command::new("md5sum").arg("-"), &bytes).success();
    assert_eq!(outcome.stdout, outside.stdout);
}

#[test]
fn a_reader_that_leaves_ends_the_writer() {
    let bundle = Bundle::script("yes; exit 7");
    let stockade = Stockade::new();
    let mut child = stockade
        .command(&["run", "-b", text(bundle.path()), "pipe"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("run");
    let mut some = [0; 1 << 16];
    child.stdout.as_mut().expect("piped").read_exact(&mut some).expect("read");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("wait").code(), Some(7), "yes(1) must have died of SIGPIPE");
}

#[test]
fn a_terminal_is_one_inside() {
    let bundle =
        Bundle::script("tty; test -t 0 && test -t 1 && test -t 2 && echo terminal; stty size < /dev/tty")
            .edit(|config| {
                config["process"]["terminal"] = true.into();
                config["process"]["consoleSize"] = serde_json::json!({ "height": 33, "width": 99 });
            });
    let outcome = Stockade::new().run_bundle(&bundle, "tty").success();
    // The caller's output is a pipe, so newlines stay what they are.
    assert_eq!(outcome.stdout, "/dev/pts/0\nterminal\n33 99\n");
}

/// A daemon that an exec leaves behind has its output, as with every runtime that gives a process its caller's pipes.
#[test]
fn a_stream_lives_as_long_as_its_last_holder() {
    let stockade = Stockade::new();
    let before = Snapshot::take();
    let bundle = Bundle::busybox(&["sleep", "1000"]);
    stockade.create(&bundle, "held");
    stockade.run(&["start", "held"]).success();
    stockade.run(&["exec", "held", "busybox", "mkfifo", "/dev/shm/go"]).success();
    let script =
        "(read go < /dev/shm/go; echo late; echo err >&2; touch /survived; echo later) & echo now; exit 3";
    let mut exec = stockade
        .command(&["exec", "held", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("exec");
    // It ends with its process, while somebody else in the container has its streams.
    assert_eq!(exec.wait().expect("wait").code(), Some(3));
    let mut stdout = exec.stdout.take().expect("piped");
    let mut now = [0; 4];
    stdout.read_exact(&mut now).expect("read");
    assert_eq!(&now, b"now\n");
    stockade.run(&["exec", "held", "sh", "-c", "echo > /dev/shm/go"]).success();
    let (mut rest, mut errors) = (String::new(), String::new());
    stdout.read_to_string(&mut rest).expect("read");
    exec.stderr.take().expect("piped").read_to_string(&mut errors).expect("read");
    assert_eq!((rest.as_str(), errors.as_str()), ("late\nlater\n", "err\n"));
    assert!(bundle.rootfs().join("survived").exists());

    // The container's end is that of all its streams.
    let mut left = stockade
        .command(&["exec", "held", "sh", "-c", "sleep 1000 & echo begun"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("exec");
    assert_eq!(left.wait().expect("wait").code(), Some(0));
    stockade.run(&["delete", "--force", "held"]).success();
    let mut text = String::new();
    left.stdout.take().expect("piped").read_to_string(&mut text).expect("read");
    assert_eq!(text, "begun\n");
    before.assert_same_now();
}
