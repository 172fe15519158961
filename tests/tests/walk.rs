//! The walk that every user of an OCI runtime knows, from `umoci unpack` to `delete`, in one go.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use stockade_tests::bundle;
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::host;
use stockade_tests::terminal::{ConsoleSocket, Terminal};

/// What busybox's shell prints when it waits: its prompt, and a question for the cursor's position.
const PROMPT: &str = "/ # \u{1b}[6n";

/// Runs a tool in `directory`.
fn tool(directory: &Path, program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    Outcome::of(command.args(args).current_dir(directory), b"").success().stdout
}

/// A bundle that umoci has unpacked from an image with busybox in it.
fn unpacked(directory: &Path) -> PathBuf {
    bundle::make_rootfs(&directory.join("files"));
    tool(directory, "umoci", &["init", "--layout", "image"]);
    tool(directory, "umoci", &["new", "--image", "image:latest"]);
    tool(directory, "umoci", &["insert", "--image", "image:latest", "files", "/"]);
    tool(directory, "umoci", &["unpack", "--image", "image:latest", "bundle"]);
    directory.join("bundle")
}

/// Changes config.json with jq, as a person does.
fn jq(bundle: &Path, filter: &str) {
    let edited = tool(bundle, "jq", &[filter, "config.json"]);
    fs::write(bundle.join("config.json"), edited).expect("write config.json");
}

struct Walk {
    stockade: Stockade,
    bundle: PathBuf,
}

impl Walk {
    fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.stockade.command(args).current_dir(&self.bundle), b"")
    }

    /// The status that `list` shows for the container.
    fn listed(&self) -> String {
        let table = self.run(&["list"]).success().stdout;
        let mut lines = table.lines();
        assert!(lines.next().expect("a header").starts_with("ID "), "{table}");
        let row: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(row.first(), Some(&"c"), "{table}");
        row[2].to_owned()
    }
}

#[test]
fn from_an_image_to_nothing() {
    let directory = bundle::directory();
    let walk = Walk { bundle: unpacked(directory.path()), stockade: Stockade::new() };
    let before = host::Snapshot::take();

    fs::remove_file(walk.bundle.join("config.json")).expect("umoci's config.json");
    walk.run(&["spec"]).success();
    let console = ConsoleSocket::listen(directory.path());
    let status = walk
        .stockade
        .command(&["create", "-b", text(&walk.bundle), "--console-socket", console.path(), "c"])
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("stockade create").success());
    let mut terminal = console.receive();
    drop(console);

    assert_eq!(walk.listed(), "created");
    let processes = walk.run(&["ps", "c"]).success().stdout;
    assert!(processes.starts_with("UID") && processes.lines().count() == 2, "its init waits: {processes}");
    let mut person = Terminal::open(24, 80);
    let mut exec = person.spawn(&mut walk.stockade.command(&["exec", "-t", "c", "echo", "Hello, world!"]));
    person.expect("Hello, world!\r\n");
    assert!(exec.wait().expect("exec").success());

    walk.run(&["start", "c"]).success();
    terminal.expect(PROMPT);
    terminal.send("ps aux\n");
    let shown = terminal.expect(PROMPT);
    assert!(shown.contains("    1 root") && shown.contains("ps aux"), "the container's processes: {shown}");
    assert_eq!(walk.listed(), "running");

    walk.run(&["pause", "c"]).success();
    terminal.send("echo frozen $((6 * 7))\n");
    assert_eq!(walk.listed(), "paused");
    assert_eq!(terminal.output_within(Duration::ZERO), "", "nothing comes out of a paused container");
    walk.run(&["resume", "c"]).success();
    terminal.expect("frozen 42\r\n");
    let stats: Value =
        serde_json::from_str(&walk.run(&["events", "--stats", "c"]).success().stdout).expect("JSON");
    assert_eq!((&stats["type"], &stats["id"]), (&"stats".into(), &"c".into()));
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64() > Some(0), "{stats}");

    let relay = walk.stockade.state("c")["pid"].as_i64().expect("pid") as i32;
    terminal.send("exit\n");
    terminal.rest();
    host::wait_for_end(relay);
    assert_eq!(walk.listed(), "stopped");
    walk.run(&["start", "c"]).failure(1, &["cannot start a container that has stopped"]);
    walk.run(&["delete", "c"]).success();
    assert_eq!(walk.run(&["list", "-q"]).success().stdout, "");

    jq(&walk.bundle, r#".process.args = ["echo", "changed"] | .process.terminal = false"#);
    assert_eq!(walk.run(&["run", "c"]).success().stdout, "changed\n");
    jq(&walk.bundle, r#".process.args = ["ps", "a"] | .linux.namespaces |= map(select(.type != "pid"))"#);
    let processes = walk.run(&["run", "c"]).success().stdout;
    assert!(processes.contains("[kthreadd]"), "the guest's processes: {processes}");
    assert!(!processes.contains("lab-init") && !processes.contains("from_an_image"), "{processes}");
    before.assert_same_now();
}
