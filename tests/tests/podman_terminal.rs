//! podman and conmon between a person's terminal and the container's: `-t`, detaching, exec, sd_notify.

use std::os::unix::net::UnixDatagram;
use std::process::Child;
use std::time::Duration;

use stockade_tests::cli::text;
use stockade_tests::engine::Podman;
use stockade_tests::host;
use stockade_tests::terminal::Terminal;

const CTRL_C: &str = "\x03";
const CTRL_P_CTRL_Q: &[u8] = b"\x10\x11";

#[track_caller]
fn status(mut child: Child) -> Option<i32> {
    host::wait_for_end(child.id() as i32);
    child.wait().expect("wait").code()
}

#[test]
fn a_person_runs_leaves_comes_back_and_looks_in() {
    let podman = Podman::new();
    let mut terminal = Terminal::open(30, 100);
    let before = terminal.settings();
    let options = ["--name", "tty", "-it", "--env", "PS1=ready> "];
    let run = terminal.spawn(&mut podman.container_command(&options, &["sh"]));
    terminal.expect("ready> ");
    terminal.send("stty size; tty\n");
    terminal.expect("30 100\r\n/dev/pts/0\r\n");
    terminal.send("sh -c 'echo begun; while :; do sleep 0.1; done'\n");
    terminal.expect("\r\nbegun");
    terminal.send(CTRL_C);
    terminal.expect("ready> ");
    terminal.send("echo status $?\n");
    terminal.expect("status 130\r\n");
    terminal.resize(50, 132);
    terminal.send("until [ \"$(stty size)\" = '50 132' ]; do sleep 0.1; done; echo re''sized\n");
    terminal.expect("resized\r\n");
    // podman takes them for itself only if it reads them one by one, and else passes them on.
    terminal.press(CTRL_P_CTRL_Q);
    assert_eq!(status(run), Some(0), "detached");
    assert_eq!(terminal.settings(), before);
    assert_eq!(podman.inspect("tty", "{{.State.Status}}"), "running");

    let exec =
        terminal.spawn(&mut podman.command(&["exec", "-it", "tty", "sh", "-c", "stty size; tty; exit 6"]));
    terminal.expect("50 132\r\n/dev/pts/1\r\n");
    assert_eq!(status(exec), Some(6));

    let attach = terminal.spawn(&mut podman.command(&["attach", "tty"]));
    terminal.send("\n");
    terminal.expect("ready> ");
    terminal.send("exit 7\n");
    status(attach);
    assert_eq!(terminal.settings(), before);
    assert_eq!(podman.inspect("tty", "{{.State.ExitCode}}"), "7");
    podman.run(&["rm", "tty"]).success();
    podman.assert_clean();
}

#[test]
fn a_container_is_ready_when_it_says_so() {
    let podman = Podman::new();
    let path = podman.path().join("manager.sock");
    let manager = UnixDatagram::bind(&path).expect("bind");
    manager.set_read_timeout(Some(Duration::from_secs(120))).expect("timeout");
    let perl = r#"use Socket; socket(S, AF_UNIX, SOCK_DGRAM, 0) or die $!;
        connect(S, sockaddr_un($ENV{NOTIFY_SOCKET})) or die $!; send(S, "READY=1", 0) or die $!; sleep 1000"#;
    let options = [
        "-d",
        "--name",
        "ready",
        "--sdnotify",
        "container",
        "-v",
        "/usr:/usr:ro",
        "-v",
        "/lib:/lib:ro",
        "-v",
        "/lib64:/lib64:ro",
    ];
    let mut command = podman.container_command(&options, &["/usr/bin/perl", "-e", perl]);
    let run = command
        .env("NOTIFY_SOCKET", text(&path))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("podman");
    let mut said = String::new();
    while !said.contains("READY=1") {
        let mut bytes = [0; 4096];
        let length = manager.recv(&mut bytes).expect("podman has said nothing of the container");
        said += &String::from_utf8_lossy(&bytes[..length]);
    }
    assert_eq!(status(run), Some(0));
    podman.run(&["rm", "--force", "--time", "0", "ready"]).success();
}
