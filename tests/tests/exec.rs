//! Further processes in a container, as people and engines ask for them.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use stockade_tests::bundle::Bundle;
use stockade_tests::cli::{Outcome, Stockade, text};
use stockade_tests::host::{self, Snapshot};
use stockade_tests::terminal::{ConsoleSocket, Terminal};

/// A container `c` that waits to be killed, deleted with the value.
struct Container {
    stockade: Stockade,
    bundle: Bundle,
    relay: i32,
}

impl Container {
    fn create(stockade: Stockade, edit: impl FnOnce(&mut Value)) -> Self {
        let bundle = Bundle::busybox(&["sleep", "10000"]).edit(edit);
        let relay = stockade.create(&bundle, "c");
        Self { stockade, bundle, relay }
    }

    fn start() -> Self {
        let container = Self::create(Stockade::new(), |_| {});
        container.stockade.run(&["start", "c"]).success();
        container
    }

    fn command(&self, args: &[&str]) -> Command {
        self.stockade.command(&[&["exec"], args].concat())
    }

    /// `exec ARGS` with an empty standard input.
    fn exec(&self, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(args), b"")
    }

    /// `exec c sh -c SCRIPT`.
    fn script(&self, script: &str) -> Outcome {
        self.exec(&["c", "sh", "-c", script])
    }

    /// `exec --detach ARGS`, which must succeed; the PID in the pid file.
    fn detach(&self, args: &[&str]) -> i32 {
        let pid_file = self.file("exec.pid");
        let mut command = self.command(&[&["--detach", "--pid-file", text(&pid_file)], args].concat());
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("exec");
        assert!(status.success(), "{args:?}: {status}");
        fs::read_to_string(pid_file).expect("pid file").parse().expect("PID")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.bundle.path().join(name)
    }

    /// Makes a pipe in the container; whoever reads it comes to its end when no process that has run [`HOLD`] is left.
    fn make_pipe(&self) {
        self.script("busybox mkfifo /dev/shm/alive").success();
    }
}

/// A shell script that lives for long and has the pipe open.
const HOLD: &str = "exec 3> /dev/shm/alive; echo ready >&3; exec sleep 10000";

/// Reads the pipe that processes hold.
struct Reader(Child);

impl Reader {
    fn start(container: &Container) -> Self {
        let mut command = container.command(&["c", "cat", "/dev/shm/alive"]);
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("exec"))
    }

    fn wait_for_holder(&mut self) {
        let mut ready = [0; 6];
        self.0.stdout.as_mut().expect("piped").read_exact(&mut ready).expect("read");
        assert_eq!(&ready, b"ready\n");
    }

    fn wait_until_nobody_holds(self) {
        assert_eq!(self.0.wait_with_output().expect("cat").stdout, b"");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let outcome = self.stockade.run(&["delete", "--force", "c"]);
        assert!(std::thread::panicking() || outcome.status == 0, "{outcome:#?}");
    }
}

/// Makes orphans of this test's commands its children, as conmon and containerd's shim do.
fn be_subreaper() {
    nix::sys::prctl::set_child_subreaper(true).expect("prctl");
}

/// The only child of a process.
fn child_of(pid: u32) -> i32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
    children.trim().parse().expect("one child")
}

/// Waits for a relay that its exec has left to this test; its exit status.
fn reap(pid: i32) -> i32 {
    match waitpid(Pid::from_raw(pid), None).expect("the relay is no child of the subreaper") {
        WaitStatus::Exited(_, status) => status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_process_joins_a_container_before_and_after_its_start() {
    let container = Container::create(Stockade::new(), |config| {
        // /sys/fs/cgroup, to make a cgroup there.
        config["mounts"][6]["options"] = json!(["nosuid", "noexec", "nodev"]);
        config["process"]["noNewPrivileges"] = false.into();
        config["process"]["env"].as_array_mut().expect("env").push("A=config".into());
    });
    // What counts is what config.json said at create.
    container.bundle.raw_config("{}");
    let script = "hostname; cat /proc/1/comm /proc/self/cgroup";
    let created = container.script(script).success().stdout;
    container.stockade.run(&["start", "c"]).success();
    let running = container.script(script).success().stdout;
    assert_eq!(running, "stockade\nsleep\n0::/\n");
    assert_eq!(created, "stockade\ninit\n0::/\n");

    let options =
        ["--cwd", "/tmp", "--env", "A=option", "-e", "B=2", "--user", "1000:1001", "-g", "7", "-g", "8"];
    let more = ["--cap", "CAP_CHOWN", "--cap", "sys_nice", "--no-new-privs", "c", "sh", "-c"];
    let script = "pwd; echo $A$B; id; grep -E '^(CapEff|CapBnd|NoNewPrivs|Groups)' /proc/self/status";
    let outcome = container.exec(&[&options[..], &more, &[script]].concat()).success();
    let lines: Vec<&str> = outcome.stdout.lines().map(str::trim_end).collect();
    // AUDIT_WRITE, KILL and NET_BIND_SERVICE are in config.json's bounding set; a user has what is ambient, which needs
    // config.json to make it inheritable.
    assert_eq!(
        lines,
        [
            "/tmp",
            "option2",
            "uid=1000(user) gid=1001 groups=7,8",
            "Groups:\t7 8",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000020800421",
            "NoNewPrivs:\t1",
        ]
    );
    let plain = container.script("echo $A$HOME; grep NoNewPrivs /proc/self/status").success();
    assert_eq!(plain.stdout, "config/root\nNoNewPrivs:\t0\n");
    assert_eq!(
        container.exec(&["--user", "user", "c", "id"]).success().stdout,
        "uid=1000(user) gid=1000(user)\n"
    );

    container.script("mkdir /sys/fs/cgroup/sub").success();
    let inside = container.exec(&["--cgroup", "/sub", "c", "cat", "/proc/self/cgroup"]).success();
    assert_eq!(inside.stdout, "0::/sub\n");
    container.exec(&["--cgroup", "none", "c", "true"]).failure(255, &["none", "no such file"]);
    let added = container.exec(&["--cap", "CHOWN", "c", "grep", "Cap", "/proc/self/status"]).success();
    for set in ["CapInh", "CapAmb"] {
        assert!(added.stdout.contains(&format!("{set}:\t0000000000000000\n")), "{added:#?}");
    }
    assert!(added.stdout.contains("CapEff:\t0000000020000421\n"), "{added:#?}");
}

#[test]
fn a_process_that_lists_no_capabilities_has_the_containers() {
    let container = Container::start();
    let file = container.file("process.json");
    let process =
        r#"{"cwd": "/", "args": ["/bin/grep", "CapEff", "/proc/self/status"], "user": {"uid": 0, "gid": 0}}"#;
    fs::write(&file, process).expect("write");
    let outcome = container.exec(&["--process", text(&file), "c"]).success();
    assert_eq!(outcome.stdout, "CapEff:\t0000000020000420\n");
}

#[test]
fn the_exit_status_is_the_processes_and_mistakes_are_told_apart() {
    let container = Container::start();
    assert_eq!(container.script("exit 7").status, 7);
    assert_eq!(container.script("kill -KILL $$").status, 137);
    // What looks like an option after the command is the command's.
    let options = ["c", "echo", "--tty", "-d", "--", "--help"];
    assert_eq!(container.exec(&options).success().stdout, "--tty -d -- --help\n");
    container.exec(&["c", "nosuch"]).failure(255, &["nosuch", "executable file not found in $PATH"]);
    container.exec(&["c", "/etc/passwd"]).failure(255, &["/etc/passwd", "permission denied"]);
    container.exec(&["c", "/etc/nosuch"]).failure(255, &["/etc/nosuch", "no such file or directory"]);
    container.exec(&["none", "true"]).failure(255, &["exec failed", "\"none\"", "does not exist"]);
    container.exec(&["c"]).failure(255, &["command"]);
    container.exec(&["--cap", "FLY", "c", "true"]).failure(255, &["--cap", "FLY"]);
    container.exec(&["--user", "ghost", "c", "true"]).failure(255, &["--user", "ghost", "etc/passwd"]);
    container.exec(&["--cwd", "/none", "c", "true"]).failure(255, &["/none", "no such file"]);
    container.exec(&["--cwd", "none", "c", "true"]).failure(255, &["process.cwd", "absolute"]);
    container.exec(&["-td", "c", "true"]).failure(255, &["--console-socket"]);
    container.exec(&["--process", "/none", "c"]).failure(255, &["--process", "/none"]);
    let file = container.file("process.json");
    fs::write(&file, r#"{"cwd": "/", "args": "ls", "user": {"uid": 0, "gid": 0}}"#).expect("write");
    container.exec(&["--process", text(&file), "c"]).failure(255, &["process.json", "args"]);
    container.exec(&["--process", text(&file), "c", "true"]).failure(255, &["--process", "command"]);

    container.stockade.run(&["pause", "c"]).success();
    container
        .exec(&["c", "true"])
        .failure(255, &["cannot exec in a paused container (use --ignore-paused to override)"]);
    let mut waiting = container
        .command(&["--ignore-paused", "c", "echo", "resumed"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("exec");
    container.stockade.run(&["resume", "c"]).success();
    let mut output = String::new();
    waiting.stdout.take().expect("piped").read_to_string(&mut output).expect("read");
    assert_eq!((output.as_str(), waiting.wait().expect("wait").code()), ("resumed\n", Some(0)));

    container.stockade.run(&["kill", "c", "KILL"]).success();
    host::wait_for_end(container.relay);
    container.exec(&["c", "true"]).failure(255, &["cannot exec in a stopped container"]);
}

#[test]
fn streams_arrive_whole_and_apart_and_end() {
    let container = Container::start();
    let apart = container.script("echo to out; echo to err >&2").success();
    assert_eq!((apart.stdout.as_str(), apart.stderr.as_str()), ("to out\n", "to err\n"));

    // The end of the input comes while the output is still to be written.
    let input: Vec<u8> =
        (0..1_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut command = container.command(&["c", "sh", "-c", "md5sum; echo after the end"]);
    let inside = Outcome::of(&mut command, &input).success();
    let outside = Outcome::of(&mut Command::new("md5sum"), &input).success();
    assert_eq!(inside.stdout, format!("{}after the end\n", outside.stdout));

    let flood = container.exec(&["c", "sh", "-c", "dd if=/dev/zero bs=1M count=8 2>/dev/null | tr '\\0' x"]);
    let flood = flood.success();
    assert_eq!(flood.stdout.len(), 8 << 20);
}

#[test]
fn a_terminal_is_the_callers() {
    let container = Container::start();
    let mut terminal = Terminal::open(30, 100);
    let before = terminal.settings();
    let mut child = terminal.spawn(&mut container.command(&["-t", "-e", "PS1=ready> ", "c", "sh"]));
    terminal.expect("ready> ");
    terminal.send("tty; stty size\n");
    terminal.expect("/dev/pts/0\r\n30 100\r\n");
    terminal.expect("ready> ");
    terminal.send("trap 'stty size; told=1' WINCH; echo arm''ed; until [ \"$told\" ]; do :; done\n");
    terminal.expect("armed\r\n");
    terminal.resize(40, 120);
    terminal.expect("40 120\r\n");
    terminal.expect("ready> ");
    // While the line is edited, Ctrl-C is a character.
    terminal.send("echo ru''ns; cat\n");
    terminal.expect("runs\r\n");
    terminal.send("\x03");
    terminal.expect("^C");
    terminal.expect("ready> ");
    terminal.send("exit 9\n");
    terminal.expect("exit 9\r\n");
    assert_eq!(child.wait().expect("wait").code(), Some(9));
    assert_eq!(terminal.settings(), before, "the terminal is not as it was");
}

#[test]
fn a_detached_process_is_its_callers_and_ends_with_its_container() {
    be_subreaper();
    let container = Container::start();
    // As conmon and containerd ask.
    let socket = ConsoleSocket::listen(container.bundle.path());
    let file = container.file("process.json");
    let process = json!({
        "args": ["sh", "-c", "stty size; read line; echo got $line; exit 5"],
        "cwd": "/", "user": { "uid": 0, "gid": 0 }, "terminal": true,
        "consoleSize": { "height": 12, "width": 34 },
        "env": ["PATH=/bin"],
    });
    fs::write(&file, process.to_string()).expect("write");
    let pid = container.detach(&["--process", text(&file), "--console-socket", socket.path(), "c"]);
    let mut terminal = socket.receive();
    terminal.expect("12 34\r\n");
    for kind in ["pid", "mnt", "net", "uts", "ipc"] {
        let namespace = |pid| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("namespace");
        assert_eq!(namespace(pid), namespace(container.relay), "{kind}");
    }
    assert_eq!(host::cgroup_of(pid), host::cgroup_of(container.relay));
    assert_eq!(host::status_field(pid, "Name"), "sh");
    assert_eq!(host::status_field(pid, "CapEff"), "0000000000000000");
    assert_eq!(host::status_field(pid, "PPid"), std::process::id().to_string());
    let file_of_root = fs::read_to_string(format!("/proc/{pid}/root/etc/passwd")).expect("passwd");
    assert_eq!(
        file_of_root,
        fs::read_to_string(container.bundle.rootfs().join("etc/passwd")).expect("passwd")
    );
    terminal.send("line\n");
    terminal.expect("got line\r\n");
    assert_eq!(reap(pid), 5);

    // Signals that are sent to the PID arrive; SIGKILL, which cannot be passed on, ends the process all the same.
    container.make_pipe();
    let mut reader = Reader::start(&container);
    let trap = "trap 'exit 3' TERM; exec 3> /dev/shm/alive; echo ready >&3; while :; do sleep 1000 3>&- & wait; done";
    let pid = container.detach(&["c", "sh", "-c", trap]);
    reader.wait_for_holder();
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("kill");
    assert_eq!(reap(pid), 3);
    reader.wait_until_nobody_holds();

    let mut reader = Reader::start(&container);
    let pid = container.detach(&["c", "sh", "-c", HOLD]);
    reader.wait_for_holder();
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    assert!(matches!(waitpid(Pid::from_raw(pid), None), Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))));
    reader.wait_until_nobody_holds();

    // An exec that is killed takes its process along.
    let mut reader = Reader::start(&container);
    let mut foreground = container.command(&["c", "sh", "-c", HOLD]).spawn().expect("exec");
    reader.wait_for_holder();
    let orphan = child_of(foreground.id());
    foreground.kill().expect("kill");
    foreground.wait().expect("wait");
    reader.wait_until_nobody_holds();
    assert_eq!(reap(orphan), 137);

    let pid = container.detach(&["c", "sleep", "1000"]);
    container.stockade.run(&["kill", "c", "KILL"]).success();
    let status = waitpid(Pid::from_raw(pid), None).expect("wait");
    assert!(
        matches!(status, WaitStatus::Exited(_, 137) | WaitStatus::Signaled(_, Signal::SIGKILL, _)),
        "{status:?}"
    );
}

/// A socket to which nobody can connect until its first connection, the result's second, is accepted.
fn listen_with_a_full_queue(path: &std::path::Path) -> (UnixListener, UnixStream) {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    bind(socket.as_raw_fd(), &UnixAddr::new(path).expect("a short path")).expect("bind");
    listen(&socket, Backlog::new(0).expect("backlog")).expect("listen");
    (socket.into(), UnixStream::connect(path).expect("connect"))
}

#[test]
fn a_detached_process_may_end_before_its_exec() {
    be_subreaper();
    let container = Container::start();
    container.make_pipe();
    let mut reader = Reader::start(&container);
    let path = container.file("pidfd.sock");
    let (listener, _first) = listen_with_a_full_queue(&path);
    let mut command = container.command(&["--detach", "--pidfd-socket", text(&path), "c", "sh", "-c", HOLD]);
    let mut exec = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("exec");
    reader.wait_for_holder();
    // The process runs, and the exec still has to tell of it.
    let relay = child_of(exec.id());
    kill(Pid::from_raw(relay), Signal::SIGTERM).expect("kill");
    reader.wait_until_nobody_holds();
    host::wait_for_end(relay);
    let _accepted = [listener.accept().expect("the first"), listener.accept().expect("the exec's")];
    let status = exec.wait().expect("exec");
    assert!(status.success(), "{status}");
    assert_eq!(reap(relay), 143);
}

#[test]
fn a_signal_to_the_command_is_the_processes() {
    let container = Container::start();
    let script =
        "trap 'echo caught; exit 4' USR1; echo ready; while :; do sleep 1000 > /dev/null & wait; done";
    let mut child = container
        .command(&["c", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("exec");
    let mut stdout = child.stdout.take().expect("piped");
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready).expect("ready");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGUSR1).expect("kill");
    let mut rest = String::new();
    // The shell's child lives on, and has not the output open.
    stdout.read_to_string(&mut rest).expect("read");
    let status = child.wait().expect("wait");
    assert_eq!((rest.as_str(), status.code(), status.signal()), ("caught\n", Some(4), None));
}

#[test]
fn many_leave_nothing_behind() {
    let container = Container::start();
    container.exec(&["c", "true"]).success();
    let before = Snapshot::take();
    for _ in 0..50 {
        container.exec(&["c", "true"]).success();
    }
    before.assert_same_now();
    let processes = container.exec(&["c", "ps"]).success();
    assert_eq!(
        processes.stdout.lines().count(),
        3,
        "a heading, the init and ps itself: {}",
        processes.stdout
    );
}

#[test]
fn a_shell_in_the_guest_needs_the_configurations_leave() {
    let container = Container::start();
    container.stockade.run(&["shell", "c"]).failure(1, &["debug_shell", "config.toml"]);
    drop(container);

    let container = Container::create(Stockade::with_config("debug_shell = \"/bin/busybox\""), |_| {});
    let shell =
        |script: &str| Outcome::of(&mut container.stockade.command(&["shell", "c"]), script.as_bytes());
    let outcome = shell("cat /proc/1/comm\nls /run/shares\ntouch /run/shares/@*/sh\nexit 5\n");
    assert_eq!(outcome.status, 5, "{outcome:#?}");
    // Beside the shell's own share there is the container's, under the name that its creation got.
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(lines.len() == 3 && lines[0] == "init", "{outcome:#?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("@shell-")).count(), 1, "{outcome:#?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:#?}");
    // Of the first nothing is left.
    assert_eq!(shell("ls -d /run/shares/@* | wc -l").success().stdout, "1\n");

    let mut terminal = Terminal::open(24, 80);
    let mut child = terminal.spawn(&mut container.stockade.command(&["shell", "c"]));
    terminal.expect("# ");
    terminal.send("tty\n");
    terminal.expect("/dev/pts/0\r\n");
    terminal.send("exit\n");
    assert!(child.wait().expect("wait").success());
}

/// As systemd, dockerd and k3s do: from then on the kernel takes no process into the container's own cgroup.
#[test]
fn a_process_joins_the_init_where_the_container_has_handed_its_controllers_down() {
    let container = Container::create(Stockade::new(), |config| {
        config["mounts"][6]["options"] = json!(["nosuid", "noexec", "nodev"]);
    });
    container.stockade.run(&["start", "c"]).success();
    let script = "cd /sys/fs/cgroup && mkdir inner && \
                  for pid in $(cat cgroup.procs); do echo $pid > inner/cgroup.procs 2> /dev/null; done; \
                  echo +memory > cgroup.subtree_control && cat cgroup.subtree_control";
    assert_eq!(container.script(script).success().stdout, "memory\n");
    assert_eq!(container.script("cat /proc/self/cgroup").success().stdout, "0::/inner\n");
}
