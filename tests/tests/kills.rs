//! SIGKILL at any system call: whatever dies in a pod's life, `delete --force` leaves nothing of it.
//!
//! A seed chooses the points. A failed test shows it, and `STOCKADE_KILL_SEED` and `STOCKADE_KILL_COUNT` (points for
//! each test) repeat them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stockade_tests::bundle::{Bundle, make_rootfs};
use stockade_tests::cli::{Stockade, text};
use stockade_tests::crio::{Crio, Pod};
use stockade_tests::engine::{Containerd, Shim};
use stockade_tests::host::{self, Snapshot};
use stockade_tests::killer::Numbers;

/// How many points a test has.
fn count(default: usize) -> usize {
    match std::env::var("STOCKADE_KILL_COUNT") {
        Ok(count) => count.parse().expect("STOCKADE_KILL_COUNT: a number"),
        Err(_) => default,
    }
}

/// A pod and the commands of its life.
struct Walk {
    crio: Crio,
    before: Snapshot,
    pod: Pod,
    picture: String,
    member: Bundle,
    steps: Vec<Vec<String>>,
}

impl Walk {
    fn new() -> Self {
        let crio = Crio::new();
        let pod = Pod::new("pod");
        let picture = pod.netns.picture();
        let member = pod.member("member", "exec sleep 1000", None);
        let (pod_bundle, member_bundle) = (text(pod.bundle.path()), text(member.path()));
        let steps = [
            &["create", "--bundle", pod_bundle, "pod"][..],
            &["start", "pod"],
            &["create", "--bundle", member_bundle, "member"],
            &["start", "member"],
            &["exec", "member", "/bin/busybox", "true"],
            &["update", "--memory", "52428800", "member"],
            &["kill", "member", "KILL"],
            &["delete", "--force", "member"],
            &["kill", "pod", "KILL"],
            &["delete", "--force", "pod"],
        ];
        let steps = steps.map(|words| words.iter().map(|word| (*word).to_owned()).collect()).to_vec();
        Self { before: Snapshot::take(), crio, pod, picture, member, steps }
    }

    fn stockade(&self) -> &Stockade {
        &self.crio.stockade
    }

    fn command(&self, step: usize) -> Command {
        let words: Vec<&str> = self.steps[step].iter().map(String::as_str).collect();
        let mut command = self.crio.command(&words);
        // Inherited output would keep pipes open for as long as the container lives.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The same command under strace.
    fn traced(&self, step: usize, options: &[&str]) -> Command {
        let command = self.command(step);
        let mut traced = Command::new("strace");
        traced.args(options).arg(command.get_program()).args(command.get_args());
        traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        traced
    }

    /// Takes a step of which nothing is expected but its end.
    fn take(&self, step: usize) {
        assert!(finish(self.command(step).spawn().expect("stockade")).success(), "{:?}", self.steps[step]);
    }

    /// The system calls of each step.
    fn measure(&self) -> Vec<Vec<String>> {
        let trace = self.member.path().join("trace");
        let measure = |step| {
            let status = finish(self.traced(step, &["-o", text(&trace)]).spawn().expect("strace"));
            assert!(status.success(), "{:?}: {status}", self.steps[step]);
            let trace = fs::read_to_string(&trace).expect("trace");
            let calls = trace.lines().filter_map(|line| Some(line.split_once('(')?.0.to_owned()));
            // The first is strace's own execve.
            calls.filter(|call| !call.is_empty() && !call.contains(' ')).skip(1).collect()
        };
        let calls = (0..self.steps.len()).map(measure).collect();
        self.assert_clean();
        calls
    }

    /// The PID in a container's record, if it has got that far.
    fn recorded(&self, id: &str, process: &str) -> Option<i32> {
        let record = fs::read(self.stockade().root().join(id).join("state.json")).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&record).expect("a record is never torn");
        Some(record[process]["pid"].as_i64()? as i32)
    }

    /// What any caller does in the end, in either order.
    #[track_caller]
    fn clean_up(&self, dice: &mut Numbers) {
        self.stockade().run(&["list"]).success();
        let mut ids = ["member", "pod"];
        if dice.below(2) == 0 {
            ids.reverse();
        }
        for id in [ids, ids].concat() {
            let outcome = self.stockade().run(&["delete", "--force", id]);
            assert_eq!(outcome.status, 0, "delete --force {id}: {outcome:#?}");
        }
        self.assert_clean();
    }

    #[track_caller]
    fn assert_clean(&self) {
        assert_eq!(self.pod.netns.picture(), self.picture, "in the network namespace");
        self.before.assert_same_now();
    }
}

/// A step, and where in it a signal is injected, in words and for strace, which counts each kind of call by itself.
fn point(dice: &mut Numbers, calls: &[Vec<String>], signal: &str) -> (usize, String, String) {
    let mut index = dice.below(calls.iter().map(Vec::len).sum());
    let mut step = 0;
    while index >= calls[step].len() {
        index -= calls[step].len();
        step += 1;
    }
    let call = &calls[step][index];
    let nth = calls[step][..=index].iter().filter(|other| *other == call).count();
    // strace's execve is the first of that name.
    let nth = nth + usize::from(call == "execve");
    let words = format!("{call} {nth}, which is {} of {}", index + 1, calls[step].len());
    (step, words, format!("inject={call}:signal={signal}:when={nth}"))
}

fn finish(mut child: Child) -> ExitStatus {
    host::wait_for_end(child.id() as i32);
    child.wait().expect("wait")
}

#[test]
fn a_command_dies() {
    let mut dice = Numbers::of("a_command_dies");
    let walk = Walk::new();
    let calls = walk.measure();
    let (points, mut killed) = (count(8), 0);
    for _ in 0..points {
        let (step, words, inject) = point(&mut dice, &calls, "KILL");
        eprintln!("{:?} is killed at {words}", walk.steps[step]);
        (0..step).for_each(|step| walk.take(step));
        let status = finish(walk.traced(step, &["-o", "/dev/null", "-e", &inject]).spawn().expect("strace"));
        // strace ends as what it has traced. A command may make fewer calls than the one that was measured.
        killed += usize::from(status.signal() == Some(libc::SIGKILL));
        walk.clean_up(&mut dice);
    }
    assert!(2 * killed > points, "{killed} of {points} commands were killed");
}

/// The command stands still at a system call while the other process dies.
#[test]
fn a_relay_or_a_vmm_dies_during_a_command() {
    let mut dice = Numbers::of("a_relay_or_a_vmm_dies_during_a_command");
    let walk = Walk::new();
    let calls = walk.measure();
    let mut killed = 0;
    for _ in 0..count(6) {
        let (step, words, inject) = point(&mut dice, &calls, "STOP");
        let (id, process) = [("pod", "vmm"), ("pod", "relay"), ("member", "relay")][dice.below(3)];
        eprintln!("{id}'s {process} is killed during {:?} at {words}", walk.steps[step]);
        (0..step).for_each(|step| walk.take(step));
        let mut strace = walk.traced(step, &["-e", &inject]).stderr(Stdio::piped()).spawn().expect("strace");
        let mut lines = BufReader::new(strace.stderr.take().expect("piped"));
        let mut line = String::new();
        // A command that makes fewer calls than the one that was measured ends; its relay keeps the pipe open.
        while !line.contains("stopped by SIGSTOP") && !line.starts_with("+++ ") {
            line.clear();
            if read_line(&mut lines, &mut line) == 0 {
                break;
            }
        }
        let victim = walk.recorded(id, process);
        if let Some(pid) = victim {
            // It may have ended already.
            killed += usize::from(kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok());
        }
        let children = format!("/proc/{0}/task/{0}/children", strace.id());
        for pid in fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            // Where the victim is not there yet, the command dies in its place.
            let signal = if victim.is_some() { Signal::SIGCONT } else { Signal::SIGKILL };
            let _ = kill(Pid::from_raw(pid.parse().expect("PID")), signal);
        }
        // The relay may have the pipe too: the command's end is what counts.
        let rest = File::from(std::os::fd::OwnedFd::from(lines.into_inner()));
        std::thread::spawn(move || std::io::copy(&mut &rest, &mut std::io::sink()));
        finish(strace);
        walk.clean_up(&mut dice);
    }
    assert!(killed > 0, "no relay and no VMM was killed");
}

/// One line, for which nobody waits longer than a minute.
fn read_line(lines: &mut BufReader<std::process::ChildStderr>, line: &mut String) -> usize {
    if lines.buffer().is_empty() {
        let mut fds = [PollFd::new(lines.get_ref().as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, 60_000u16).expect("poll"), 1, "the command neither stops nor ends");
    }
    lines.read_line(line).expect("strace's line")
}

#[test]
fn conmon_dies() {
    let mut dice = Numbers::of("conmon_dies");
    let walk = Walk::new();
    for _ in 0..count(4) {
        let calls = [
            "openat", "read", "write", "close", "mmap", "fcntl", "socket", "unlink", "mkdir", "poll", "clone",
        ];
        let (call, nth) = (calls[dice.below(calls.len())], 1 + dice.below(8));
        let (victim, bundle) = [("pod", &walk.pod.bundle), ("member", &walk.member)][dice.below(2)];
        eprintln!("conmon of {victim} is killed at {call} {nth}");
        if victim == "member" {
            walk.crio.start(&walk.pod.bundle, "pod");
        }
        // Only conmon, and not what it executes; the tracer is not in between.
        let inject = format!("inject={call}:signal=KILL:when={nth}");
        let mut traced = Command::new("strace");
        traced.args(["-D", "-f", "-b", "execve", "-o", "/dev/null", "-e", &inject]);
        let conmon = walk.crio.create_command(bundle, victim);
        traced.arg(conmon.get_program()).args(conmon.get_args()).current_dir(bundle.path());
        if walk.crio.create_by(traced, victim).is_ok() {
            let started = walk.stockade().run(&["start", victim]);
            eprintln!("start: {started:?}");
            walk.stockade().run(&["kill", victim, "KILL"]);
        }
        for id in ["member", "pod"] {
            let bundle = if id == "pod" { &walk.pod.bundle } else { &walk.member };
            if Path::new(&bundle.path().join("conmon-pidfile")).exists() || id == victim {
                walk.crio.remove(bundle, id);
            }
        }
        for name in ["strace", "conmon"] {
            host::pids_named(name).into_iter().for_each(host::wait_for_end);
        }
        for bundle in [&walk.pod.bundle, &walk.member] {
            for file in ["conmon-pidfile", "pidfile"] {
                let _ = fs::remove_file(bundle.path().join(file));
            }
        }
        walk.assert_clean();
    }
}

/// containerd, which another one succeeds, at an event of a container's life.
#[test]
fn containerd_dies() {
    let mut dice = Numbers::of("containerd_dies");
    Shim::ALL.into_iter().for_each(|shim| containerd_of_dies(shim, &mut dice));
}

fn containerd_of_dies(shim: Shim, dice: &mut Numbers) {
    let mut containerd = Containerd::with(shim);
    let rootfs = stockade_tests::bundle::directory();
    make_rootfs(rootfs.path());
    for n in 0..count(2) {
        let id = format!("box-{n}");
        let topic = ["/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit"][dice.below(4)];
        eprintln!("containerd, with {shim:?}, is killed at the event {topic}");
        let events = containerd.events();
        let script = if topic == "/tasks/exit" { "exit 3" } else { "exec sleep 1000" };
        let mut command = containerd.container_command(&[], rootfs.path(), &id, &["sh", "-c", script]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut run = command.spawn().expect("ctr");
        events.wait_for(topic);
        containerd.restart_after_kill();
        drop(events);
        // It may not notice that its daemon is another one.
        let _ = run.kill();
        run.wait().expect("ctr");
        containerd.run(&["task", "delete", "--force", &id]);
        containerd.run(&["container", "delete", &id]);
        for shim in host::pids_named("containerd-shim") {
            host::wait_for_end(shim);
        }
        for command in ["task", "container"] {
            let listed = containerd.run(&[command, "ls", "--quiet"]).success();
            assert_eq!(listed.stdout, "", "{command}s");
        }
        // The shim's socket and the pipes of a `ctr` that was killed stay with every runtime.
        for directory in ["/run/containerd/s", "/run/containerd/fifo"] {
            fs::remove_dir_all(directory).and_then(|()| fs::create_dir(directory)).expect("empty directory");
        }
        containerd.assert_clean();
    }
}
