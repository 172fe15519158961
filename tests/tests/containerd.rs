//! containerd and `ctr`, as Debian ships them: with their runc shim, whose runtime binary stockade is, and with stockade's own shim.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::{Value, json};
use stockade_tests::bundle::make_rootfs;
use stockade_tests::cli::{Outcome, built, text};
use stockade_tests::engine::{Containerd, Pending, Shim, ShimSocket, field, number};
use stockade_tests::host;
use stockade_tests::terminal::Terminal;

fn rootfs() -> tempfile::TempDir {
    let directory = stockade_tests::bundle::directory();
    make_rootfs(directory.path());
    directory
}

/// A task's line of `ctr task ls`: its ID, PID and status.
fn status(containerd: &Containerd, id: &str) -> String {
    let tasks = containerd.run(&["task", "ls"]).success();
    let line = tasks.stdout.lines().find(|line| line.split_whitespace().next() == Some(id));
    line.unwrap_or_else(|| panic!("no task {id}: {tasks:#?}")).trim_end().to_owned()
}

/// With its output piped, so that [`Outcome::wait`] can collect it.
fn piped(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

#[test]
fn run_carries_stdio_and_returns_the_status() {
    Shim::ALL.into_iter().for_each(run);
}

fn run(shim: Shim) {
    let containerd = Containerd::with(shim);
    let rootfs = rootfs();
    let script = "uname -r; read line; echo $line; echo error >&2; exit 42";
    // Not `cat`: this `ctr` loses an end of input that comes before the task has started, with every runtime.
    let mut command = containerd.container_command(&["--rm"], rootfs.path(), "run", &["sh", "-c", script]);
    let outcome = Outcome::of(&mut command, b"input\n");
    assert_eq!(outcome.status, 42, "{outcome:#?}");
    assert!(outcome.stdout.ends_with("-stockade\ninput\n"), "{outcome:#?}");
    assert_eq!(outcome.stderr, "error\n", "{outcome:#?}");

    let outcome = containerd.container(&["--rm"], rootfs.path(), "run", &["nowhere"]);
    assert_eq!(outcome.status, 1, "{outcome:#?}");
    assert!(outcome.stderr.contains("executable file not found in $PATH"), "{outcome:#?}");

    // A program that takes the output: its descriptor 3, and 5 to say that it is ready.
    let (logger, logged) = (containerd.path().join("logger"), containerd.path().join("logged"));
    fs::write(
        &logger,
        "#!/bin/sh\nexec 5>&-\necho \"$1 of $CONTAINER_ID\" > \"$2\"\nexec cat <&3 >> \"$2\"\n",
    )
    .and_then(|()| fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)))
    .expect("logger");
    let uri = format!("binary://{}?file={}", logger.display(), logged.display());
    let events = containerd.events();
    let options = ["--detach", "--log-uri", &uri];
    containerd.container(&options, rootfs.path(), "logged", &["echo", "to the logger"]).success();
    events.wait_for("/tasks/exit");
    drop(events);
    containerd.run(&["task", "rm", "logged"]).success();
    containerd.run(&["container", "rm", "logged"]).success();
    assert_eq!(fs::read_to_string(logged).expect("log"), "file of logged\nto the logger\n");

    let mut terminal = Terminal::open(24, 80);
    let settings = terminal.settings();
    let mut command = containerd.container_command(&["--rm", "--tty"], rootfs.path(), "tty", &["sh"]);
    let mut run = terminal.spawn(&mut command);
    terminal.expect("# ");
    terminal.send("until [ \"$(stty size)\" = '24 80' ]; do sleep 0.1; done; echo resi''zed\r");
    terminal.expect("resized");
    terminal.send("exit 7\r");
    assert_eq!(run.wait().expect("ctr run").code(), Some(7), "{}", terminal.rest());
    assert_eq!(terminal.settings(), settings);
    containerd.assert_clean();
}

#[test]
fn a_detached_task_executes_pauses_is_measured_killed_and_removed() {
    Shim::ALL.into_iter().for_each(detached);
}

fn detached(shim: Shim) {
    let containerd = Containerd::with(shim);
    let rootfs = rootfs();
    let log = containerd.path().join("box.log");
    let script = "trap 'echo signalled; exit 5' USR1; echo ready; while :; do sleep 0.2; done";
    let log_uri = format!("file://{}", log.display());
    let options = ["--detach", "--log-uri", &log_uri];
    containerd.container(&options, rootfs.path(), "box", &["sh", "-c", script]).success();
    assert!(status(&containerd, "box").ends_with("RUNNING"));
    let exec = ["task", "exec", "--exec-id", "one", "--cwd", "/tmp", "box"];
    let outcome = containerd.run(&[&exec[..], &["sh", "-c", "pwd; echo error >&2; exit 3"]].concat());
    assert_eq!(outcome.status, 3, "{outcome:#?}");
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("/tmp\n", "error\n"));
    // What an exec leaves behind has its output: `ctr` waits for the end of that, too.
    let script = "sleep 1000000 & echo $! >/tmp/left; echo left";
    let left = containerd.run(&["task", "exec", "--exec-id", "left", "box", "sh", "-c", script]);
    assert_eq!(left.success().stdout, "left\n");
    let kill = ["task", "exec", "--exec-id", "kill", "box", "sh", "-c", "kill -KILL $(cat /tmp/left)"];
    containerd.run(&kill).success();
    let mut terminal = Terminal::open(24, 80);
    let exec = ["task", "exec", "--exec-id", "two", "--tty", "box", "sh", "-c", "tty; exit 4"];
    let mut exec = terminal.spawn(&mut containerd.command(&exec));
    terminal.expect("/dev/pts/");
    assert_eq!(exec.wait().expect("ctr task exec").code(), Some(4), "{}", terminal.rest());
    // The container's first process and its `sleep`.
    let shown = containerd.run(&["task", "ps", "box"]).success();
    let pids: Vec<i32> =
        shown.stdout.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    assert!(pids.iter().any(|&pid| status(&containerd, "box").contains(&pid.to_string())), "{shown:#?}");
    containerd.run(&["task", "pause", "box"]).success();
    assert!(status(&containerd, "box").ends_with("PAUSED"));
    containerd.run(&["task", "resume", "box"]).success();
    assert!(status(&containerd, "box").ends_with("RUNNING"));

    let metrics = containerd.run(&["task", "metrics", "box"]).success();
    let metric = |name: &str| {
        let line = metrics
            .stdout
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{metrics:#?}"));
        line.split_whitespace().nth(1).expect("value").parse::<u64>().expect("number")
    };
    assert!(metric("cpu.usage_usec") > 0, "{metrics:#?}");
    match shim {
        // Those of the cgroup on the host, with the VM.
        Shim::Runcs => assert!(metric("memory.usage ") > 1 << 20, "{metrics:#?}"),
        // Those of the container: the shell and its `sleep`.
        Shim::Own => {
            assert!((1 << 10..8 << 20).contains(&metric("memory.usage ")), "{metrics:#?}");
            assert!((1..=2).contains(&metric("pids.current")), "{metrics:#?}");
        }
    }
    // A person sees the same container.
    let stockade = |words: &[&str]| {
        Outcome::of(Command::new(built("release/stockade")).args(["--root", shim.root()]).args(words), b"")
    };
    assert_eq!(stockade(&["list", "--quiet"]).success().stdout, "box\n");
    let state: Value = serde_json::from_str(&stockade(&["state", "box"]).success().stdout).expect("JSON");
    assert_eq!(state["status"], "running");
    assert!(status(&containerd, "box").contains(&state["pid"].to_string()), "{state}");
    assert_eq!(stockade(&["exec", "box", "echo", "seen"]).success().stdout, "seen\n");
    assert!(stockade(&["top", "--once"]).success().stdout.contains("box"));
    assert!(stockade(&["metrics"]).success().stdout.contains("stockade_sandbox_up{sandbox=\"box\"} 1"));
    let usage: Value =
        serde_json::from_str(&stockade(&["events", "--stats", "box"]).success().stdout).expect("JSON");
    assert!(usage["data"]["pids"]["current"].as_u64().is_some_and(|pids| pids > 0), "{usage}");
    stockade(&["logs", "box"]).success();
    // What opens a shell asks for the permission first, of whoever made the container.
    stockade(&["shell", "box"]).failure(1, &["debug_shell"]);
    // runc's shim does not notice.
    if shim == Shim::Own {
        stockade(&["pause", "box"]).success();
        assert!(status(&containerd, "box").ends_with("PAUSED"));
        stockade(&["resume", "box"]).success();
    }

    let events = containerd.events();
    containerd.run(&["task", "kill", "--signal", "USR1", "box"]).success();
    assert!(events.wait_for("/tasks/exit").contains("\"exit_status\":5"));
    drop(events);
    assert_eq!(fs::read_to_string(log).expect("log"), "ready\nsignalled\n");
    let removed = containerd.run(&["task", "rm", "box"]).success();
    assert!(removed.stderr.contains("exit code 5"), "{removed:#?}");
    containerd.run(&["container", "rm", "box"]).success();
    containerd.assert_clean();
}

#[test]
fn containerd_cleans_up_after_any_process_was_killed() {
    Shim::ALL.into_iter().for_each(killed);
}

fn killed(shim: Shim) {
    let containerd = Containerd::with(shim);
    let rootfs = rootfs();
    for victim in ["stockade-vmm", "relay", "containerd-shim"] {
        let events = containerd.events();
        let mut command = containerd.container_command(&["--rm"], rootfs.path(), victim, &["sleep", "1000"]);
        let run = piped(&mut command).spawn().expect("ctr run");
        let started = events.wait_for("/tasks/start");
        let pid = match victim {
            "relay" => {
                started.split("\"pid\":").nth(1).and_then(|rest| rest.trim_end_matches('}').parse().ok())
            }
            name => host::pids_named(name).first().copied(),
        };
        // SAFETY: kill takes two integers.
        assert_eq!(unsafe { libc::kill(pid.expect("PID"), libc::SIGKILL) }, 0);
        // Without the shim nobody is left to tell `ctr` a status.
        let status = if victim == "containerd-shim" { 1 } else { 137 };
        let outcome = Outcome::wait(run, victim);
        assert_eq!(outcome.status, status, "{victim}: {outcome:#?}");
        events.wait_for("/tasks/delete");
        drop(events);
        if victim == "containerd-shim" {
            // The pipes of a `ctr` that failed stay with every runtime, and the socket of runc's shim.
            let left = ["/run/containerd/fifo", "/run/containerd/s"];
            for directory in &left[..if shim == Shim::Own { 1 } else { 2 }] {
                fs::remove_dir_all(directory)
                    .and_then(|()| fs::create_dir(directory))
                    .expect("empty directory");
            }
        }
        containerd.assert_clean();
    }
}

#[test]
fn a_shim_without_containers_ends_though_nobody_has_asked_it_to() {
    let mut containerd = Containerd::with(Shim::Own);
    let rootfs = rootfs();
    containerd.container(&["--detach", "--null-io"], rootfs.path(), "box", &["sleep", "1000"]).success();
    let tasks = Tasks::of(&containerd);
    let shim = host::pids_named("containerd-shim")[0];
    containerd.while_killed(|| {
        // A containerd that has no time left sends no Shutdown, and may stay connected.
        let _connected = tasks.begin("Wait", &Tasks::name(""));
        tasks.call("Kill", &[Tasks::name(""), number(3, 9)].concat()).expect("kill");
        tasks.call("Wait", &Tasks::name("")).expect("its end");
        assert!(!host::has_ended(shim), "it has a container");
        tasks.call("Delete", &Tasks::name("")).expect("delete");
        host::wait_for_end(shim);
    });
    containerd.run(&["container", "rm", "box"]).success();
    containerd.assert_clean();
}

/// The task service of the shim of the container `box`, as clients of containerd use it that are no `ctr`.
struct Tasks(ShimSocket);

impl Tasks {
    fn of(containerd: &Containerd) -> Self {
        let bundle = containerd.path().join("state/io.containerd.runtime.v2.task/default/box");
        Self(ShimSocket::of_bundle(&bundle))
    }

    /// What names an exec, or the first process.
    fn name(exec: &str) -> Vec<u8> {
        [field(1, b"box"), field(2, exec.as_bytes())].concat()
    }

    fn begin(&self, method: &str, message: &[u8]) -> Pending {
        self.0.begin("containerd.task.v2.Task", method, message)
    }

    fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        self.begin(method, message).answer()
    }

    /// Adds an exec with these FIFOs; what has output has a terminal.
    fn exec(&self, exec: &str, args: &[&str], stdin: Option<&Path>, stdout: Option<&Path>) {
        let path = |number, path: Option<&Path>| {
            path.map_or_else(Vec::new, |path| field(number, text(path).as_bytes()))
        };
        let terminal = stdout.is_some();
        let user = json!({ "uid": 0, "gid": 0 });
        let spec = json!({ "args": args, "cwd": "/", "user": user, "terminal": terminal }).to_string();
        let spec = field(7, &field(2, spec.as_bytes()));
        let message =
            [Self::name(exec), number(3, terminal.into()), path(4, stdin), path(5, stdout), spec].concat();
        self.call("Exec", &message).expect("exec");
    }
}

/// The exit status, below 128 or that of SIGKILL, in an answer to Wait.
fn exit_status(answer: &[u8]) -> u8 {
    match answer {
        [8, status, ..] => *status,
        _ => 0,
    }
}

/// Whether an answer to State tells that the process runs, or is about to.
fn is_running(answer: &[u8]) -> bool {
    answer.windows(2).any(|pair| pair == [4 << 3, 2])
}

/// Waits until nothing more fits in a FIFO.
fn wait_until_full(path: &Path) {
    let writer = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path).expect("writer");
    let is_full = || poll(&mut [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO) == Ok(0);
    while !is_full() {
        std::thread::yield_now();
    }
}

#[test]
fn whoever_waits_for_an_exec_is_answered_whatever_becomes_of_it() {
    let containerd = Containerd::with(Shim::Own);
    let rootfs = rootfs();
    let events = containerd.events();
    containerd.container(&["--detach", "--null-io"], rootfs.path(), "box", &["sleep", "1000"]).success();
    events.wait_for("/tasks/start");
    let tasks = Tasks::of(&containerd);
    let fifo = |name: &str| {
        let path = containerd.path().join(name);
        mkfifo(&path, Mode::S_IRWXU).expect("FIFO");
        path
    };

    // A client whose input is empty says so before the process has begun.
    tasks.exec("input", &["/bin/cat"], Some(&fifo("input")), None);
    tasks.call("CloseIO", &[Tasks::name("input"), number(3, 1)].concat()).expect("CloseIO");
    tasks.call("Start", &Tasks::name("input")).expect("start");
    let ended = tasks.call("Wait", &Tasks::name("input")).expect("the end of the input");
    assert_eq!(exit_status(&ended), 0);

    // That of `ctr` ends while the process begins.
    let mut exec = containerd.command(&["task", "exec", "--exec-id", "words", "box", "cat"]);
    assert_eq!(Outcome::of(&mut exec, b"words\n").success().stdout, "words\n");

    // Clients send Wait and Start at the same time.
    tasks.exec("missing", &["/missing"], None, None);
    assert!(tasks.call("Start", &Tasks::name("missing")).expect_err("no program").contains("/missing"));
    let refused = tasks.call("Wait", &Tasks::name("missing")).expect_err("no process");
    assert!(refused.contains("not been started"), "{refused}");
    let refused = tasks.call("Start", &Tasks::name("missing")).expect_err("no process");
    assert!(refused.contains("failed to start"), "{refused}");

    // One that gives its Start up kills what that may still bring.
    tasks.exec("late", &["/bin/sleep", "1000"], None, None);
    let vmm = Pid::from_raw(host::pids_named("stockade-vmm")[0]);
    kill(vmm, Signal::SIGSTOP).expect("stop");
    let start = tasks.begin("Start", &Tasks::name("late"));
    while !is_running(&tasks.call("State", &Tasks::name("late")).expect("state")) {
        std::thread::yield_now();
    }
    let killed = tasks.begin("Kill", &[Tasks::name("late"), number(3, 9)].concat());
    kill(vmm, Signal::SIGCONT).expect("go on");
    start.answer().expect("start");
    killed.answer().expect("kill");
    assert_eq!(exit_status(&tasks.call("Wait", &Tasks::name("late")).expect("its end")), 137);

    // The container ends while nobody reads an exec's terminal: the exec's end comes first, as with runc's shim.
    let output = fifo("output");
    let _unread = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&output).expect("reader");
    tasks.exec("unread", &["/bin/cat", "/dev/zero"], None, Some(&output));
    tasks.exec("never", &["/bin/true"], None, None);
    tasks.call("Start", &Tasks::name("unread")).expect("start");
    wait_until_full(&output);
    let (waits, in_vain) =
        (tasks.begin("Wait", &Tasks::name("unread")), tasks.begin("Wait", &Tasks::name("never")));
    tasks.call("Kill", &[Tasks::name(""), number(3, 9)].concat()).expect("kill");
    for id in ["input", "words", "late", "unread", "box"] {
        let told = events.wait_for("/tasks/exit");
        assert!(told.contains(&format!("\"id\":\"{id}\"")), "{id}: {told}");
    }
    assert_eq!(exit_status(&waits.answer().expect("the exec's end")), 137);
    let refused = tasks.call("Start", &Tasks::name("never")).expect_err("a stopped container");
    assert!(refused.contains("cannot exec in a stopped container"), "{refused}");
    containerd.run(&["task", "rm", "box"]).success();
    drop(events);
    assert!(in_vain.answer().expect_err("no process").contains("does not exist"));
    containerd.run(&["container", "rm", "box"]).success();
    containerd.assert_clean();
}
