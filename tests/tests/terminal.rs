//! Containers at a terminal: the person's own in the foreground, an engine's by console socket.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios};
use nix::unistd::Pid;
use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Stockade, text};
use stockade_tests::host::{self, Snapshot};
use stockade_tests::terminal::{ConsoleSocket, Terminal};

const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";
const CTRL_P_CTRL_Q: &str = "\x10\x11";

/// Prints the window's size when it changes.
const TELL_SIZE: &str = "trap 'stty size; told=1' WINCH; echo armed; until [ \"$told\" ]; do :; done\n";

/// A bundle of an interactive shell with the prompt `ready> `.
fn shell() -> Bundle {
    Bundle::busybox(&["sh"]).edit(|config| {
        config["process"]["terminal"] = true.into();
        config["process"]["env"].as_array_mut().expect("env").push("PS1=ready> ".into());
    })
}

fn is_raw(settings: &Termios) -> bool {
    !settings.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
}

fn end(mut child: Child) -> ExitStatus {
    host::wait_for_end(child.id() as i32);
    child.wait().expect("wait")
}

#[test]
fn a_shell_in_the_foreground_is_as_one_on_the_host() {
    let stockade = Stockade::new();
    let bundle = shell().edit(|config| {
        config["process"]["consoleSize"] = serde_json::json!({ "height": 5, "width": 5 });
    });
    let mut terminal = Terminal::open(30, 100);
    let before = terminal.settings();
    let run = terminal.spawn(&mut stockade.command(&["run", "--bundle", text(bundle.path()), "shell"]));
    terminal.expect("ready> ");
    assert!(is_raw(&terminal.settings()), "the container's terminal edits lines, the host's must not");

    terminal.send("stty size\n");
    terminal.expect("30 100\r\n");
    terminal.send(TELL_SIZE);
    terminal.expect("\r\narmed");
    terminal.resize(40, 120);
    terminal.expect("40 120\r\n");
    terminal.expect("ready> ");

    terminal.send("sh -c 'trap \"echo resumed\" CONT; echo begun; while :; do sleep 0.1; done'\n");
    terminal.expect("\r\nbegun");
    terminal.send(CTRL_Z);
    terminal.expect("Stopped");
    terminal.expect("ready> ");
    terminal.send("fg\n");
    terminal.expect("\r\nresumed");
    terminal.send(CTRL_C);
    terminal.expect("ready> ");
    terminal.send("echo status $?\n");
    terminal.expect("status 130\r\n");

    terminal.send("stty raw -echo; echo raw; head -c 2 | cat -v; stty sane\n");
    terminal.expect("\nraw");
    terminal.send(CTRL_P_CTRL_Q);
    terminal.expect("^P^Q");
    terminal.expect("ready> ");

    terminal.send("exit 7\n");
    assert_eq!(end(run).code(), Some(7));
    assert_eq!(terminal.settings(), before);
}

/// As runc has it: a newline becomes a carriage return and a newline at the terminal where it is shown, and not before.
#[test]
fn a_terminal_to_a_pipe_leaves_newlines() {
    let stockade = Stockade::new();
    let bundle = Bundle::script("tty; printf 'a\\nb\\r\\n'").edit(|config| {
        config["process"]["terminal"] = true.into();
    });
    let output = bundle.path().join("output");
    let mut terminal = Terminal::open(24, 80);
    let run = stockade.command(&["run", "-b", text(bundle.path()), "piped"]);
    let mut piped = std::process::Command::new("sh");
    piped.args(["-c", "output=$1; shift; \"$@\" | cat > \"$output\"", "sh", text(&output)]);
    piped.arg(run.get_program()).args(run.get_args());
    assert_eq!(end(terminal.spawn(&mut piped)).code(), Some(0), "{}", terminal.rest());
    let output = std::fs::read_to_string(&output).expect("output");
    assert!(output.contains("/dev/pts/0\na\nb\r\n"), "{output:?}");
}

#[test]
fn the_terminal_is_restored_whatever_ends_the_container() {
    let stockade = Stockade::new();
    let bundle = shell();
    let snapshot = Snapshot::take();
    let mut terminal = Terminal::open(24, 80);
    let before = terminal.settings();
    let start_at = |terminal: &mut Terminal, id: &str| {
        let run = terminal.spawn(&mut stockade.command(&["run", "-b", text(bundle.path()), id]));
        terminal.expect("ready> ");
        assert!(is_raw(&terminal.settings()));
        (run, stockade.state(id)["pid"].as_i64().expect("pid") as i32)
    };
    let (run, relay) = start_at(&mut terminal, "vmm-dies");
    kill(Pid::from_raw(stockade.vmm_pid(relay)), Signal::SIGKILL).expect("kill the VMM");
    assert_eq!(end(run).code(), Some(137));
    let (run, relay) = start_at(&mut terminal, "relay-dies");
    kill(Pid::from_raw(relay), Signal::SIGKILL).expect("kill the relay");
    assert_eq!(end(run).code(), Some(137));
    assert_eq!(terminal.settings(), before);

    let (run, relay) = start_at(&mut terminal, "run-dies");
    let vmm = stockade.vmm_pid(relay);
    kill(Pid::from_raw(run.id() as i32), Signal::SIGKILL).expect("kill the command");
    assert_eq!(end(run).signal(), Some(libc::SIGKILL));
    host::wait_for_end(relay);
    host::wait_for_end(vmm);
    assert_eq!(terminal.settings(), before, "the relay has restored it");
    stockade.run(&["delete", "--force", "run-dies"]).success();

    let missing = Bundle::busybox(&["/no/such/program"]).edit(|config| {
        config["process"]["terminal"] = true.into();
    });
    let run = terminal.spawn(&mut stockade.command(&["run", "-b", text(missing.path()), "missing"]));
    terminal.expect("/no/such/program");
    assert_eq!(end(run).code(), Some(1));
    assert_eq!(terminal.settings(), before);
    snapshot.assert_same_now();
}

#[test]
fn an_engine_gets_the_terminal_by_its_console_socket() {
    let stockade = Stockade::new();
    let bundle = shell().edit(|config| {
        config["process"]["consoleSize"] = serde_json::json!({ "height": 33, "width": 99 });
    });
    let socket = ConsoleSocket::listen(bundle.path());
    let create = ["create", "-b", text(bundle.path()), "--console-socket", socket.path(), "engine"];
    // It ends when nobody has its standard output and error open any more.
    let created = stockade.run(&create).success();
    assert_eq!((created.stdout.as_str(), created.stderr.as_str()), ("", ""));
    let mut terminal = socket.receive();
    assert!(is_raw(&terminal.settings()));
    assert_eq!(terminal.output_within(Duration::from_millis(200)), "", "before its start");
    stockade.run(&["start", "engine"]).success();
    terminal.expect("ready> ");
    terminal.send("stty size\n");
    terminal.expect("33 99\r\n");
    terminal.send(TELL_SIZE);
    terminal.expect("\r\narmed");
    terminal.resize(50, 150);
    terminal.expect("50 150\r\n");
    terminal.expect("ready> ");
    // Who closes the terminal hangs the shell up, which then reads its end.
    let relay = stockade.state("engine")["pid"].as_i64().expect("pid") as i32;
    drop(terminal);
    host::wait_for_end(relay);
    stockade.run(&["delete", "engine"]).success();
}

#[test]
fn a_detached_run_leaves_its_terminal_to_the_engine() {
    let stockade = Stockade::new();
    let bundle = shell();
    let run = ["run", "--detach", "-b", text(bundle.path()), "detached"];
    stockade.run(&run).failure(1, &["process.terminal", "--console-socket"]);
    let socket = ConsoleSocket::listen(bundle.path());
    let with_socket = [&run[..], &["--console-socket", socket.path()]].concat();
    stockade.run(&with_socket).success();
    let mut terminal = socket.receive();
    terminal.expect("ready> ");
    assert_eq!(stockade.status("detached"), "running");
    let relay = stockade.state("detached")["pid"].as_i64().expect("pid") as i32;
    // What still has the terminal open when the shell ends does not keep the container.
    terminal.send("echo last words; exit 3\n");
    assert!(terminal.rest().ends_with("last words\r\n"));
    host::wait_for_end(relay);
    assert_eq!(stockade.status("detached"), "stopped");
    stockade.run(&["delete", "detached"]).success();

    let attached = ["run", "-b", text(bundle.path()), "--console-socket", socket.path(), "attached"];
    stockade.run(&attached).failure(1, &["--console-socket", "--detach"]);
    let plain = Bundle::busybox(&["true"]);
    let create = ["create", "-b", text(plain.path()), "--console-socket", socket.path(), "plain"];
    stockade.run(&create).failure(1, &["process.terminal", "--console-socket"]);
}

#[test]
fn a_kept_run_leaves_its_state() {
    let stockade = Stockade::new();
    let bundle = Bundle::script("exit 4");
    assert_eq!(stockade.run(&["run", "--keep", "-b", text(bundle.path()), "kept"]).status, 4);
    assert_eq!(stockade.status("kept"), "stopped");
    stockade.run(&["start", "kept"]).failure(1, &["stopped"]);
    stockade.run(&["kill", "kept"]).failure(1, &["container not running"]);
    stockade.run(&["delete", "kept"]).success();
}
