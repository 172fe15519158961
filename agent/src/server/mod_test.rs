//! The life of containers and connections, with UNIX sockets for vsock and this test for a container's init.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{fd::FromRawFd, unix::net::UnixStream},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::{
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socketpair},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use serde::{Serialize, de::DeserializeOwned};
use stockade_protocol::{
    agent::{
        AgentError, ContainerState, Exec, ExitStatus, Hello, HelloReply, ProcessCommand, ProcessEvent,
        Purpose, VERSION,
    },
    frame::{self, GUEST_LIMIT},
};
use tempfile::TempDir;

use super::*;
use crate::{
    cgroup::Cgroup,
    container::Audience,
    process::{Channel, Phase},
    stdio::{ProcessPipes, Stdio},
};

/// Held while there is a server: it reaps every child of the process, and so those of other tests.
static CHILDREN: Mutex<()> = Mutex::new(());

/// A server between whose turns a test acts as host and guest.
pub(super) struct Guest {
    pub server: Server,
    _listener: UnixStream,
    _children: MutexGuard<'static, ()>,
}

/// A container whose init is this test.
pub(super) struct FakeInit {
    pub id: ProcessId,
    channel: UnixStream,
    pub cgroup: TempDir,
}

impl Guest {
    pub fn new() -> Self {
        let children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let (listener, kept) = UnixStream::pair().unwrap();
        Self { server: Server::new(listener.into()).unwrap(), _listener: kept, _children: children }
    }

    /// Handles events until there are none.
    pub fn settle(&mut self) {
        loop {
            let mut targets = mem::take(&mut self.server.again);
            targets.extend(self.server.poller.wait(true).unwrap());
            if targets.is_empty() {
                return;
            }
            targets.into_iter().for_each(|target| self.server.handle(target));
        }
    }

    /// Handles events until a process has ended, and has it reaped. What ends it may be late: a process that was just
    /// started has copies of the test's descriptors until its program runs, and so keeps connections open.
    fn await_end(&mut self, pid: Pid) {
        // SAFETY: the call takes two numbers; what it returns is a new descriptor, or no descriptor.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        if pidfd < 0 {
            // It has been reaped already.
            return self.settle();
        }
        // SAFETY: it has just been made, and nobody else knows it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
        // SIGCHLD may go to another thread of the test.
        let token = self.server.poller.add(&pidfd, |_| Target::Children).unwrap();
        let runs = || {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
            waitid(Id::Pid(pid), flags).is_ok_and(|status| status == WaitStatus::StillAlive)
        };
        self.settle();
        while runs() {
            let targets = self.server.poller.wait(false).unwrap();
            targets.into_iter().for_each(|target| self.server.handle(target));
            self.settle();
        }
        self.server.handle(Target::Children);
        self.server.poller.remove(&pidfd, token);
        self.settle();
    }

    /// A connection of the host that has yet to greet.
    pub fn connect(&mut self) -> UnixStream {
        let (ours, host) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        host.set_nonblocking(true).unwrap();
        let connection = Connection::new(ours.into());
        let token = self.server.poller.add(&connection, Target::Connection).unwrap();
        self.server.connections.insert(token, connection);
        host
    }

    pub fn greet(&mut self, purpose: Purpose) -> Result<UnixStream> {
        let mut host = self.connect();
        self.tell(&mut host, &Hello::new(purpose));
        match receive(&mut host) {
            HelloReply::Welcome => Ok(host),
            HelloReply::Refused(refusal) => Err(refusal),
        }
    }

    pub fn tell(&mut self, host: &mut UnixStream, message: &impl Serialize) {
        frame::write(host, message).unwrap();
        self.settle();
    }

    pub fn ask(&mut self, host: &mut UnixStream, request: Request) -> Response {
        self.tell(host, &request);
        receive(host)
    }

    fn state(&mut self, host: &mut UnixStream, init: &FakeInit) -> Response {
        self.ask(host, Request::State { container: init.id.container.clone() })
    }

    fn add(&mut self, id: &str, phase: Phase, pid: Pid, stdio: Stdio) -> FakeInit {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let id = ProcessId { container: id.to_owned(), exec: None };
        let key = Rc::new(id.clone());
        let token = self.server.poller.add(&ours, |_| Target::Report(key.clone())).unwrap();
        let cgroup = tempfile::tempdir().unwrap();
        fs::write(cgroup.path().join("cgroup.kill"), "").unwrap();
        let container = Container {
            init: key.clone(),
            cgroup: Cgroup::at(cgroup.path().to_owned()),
            device_rules: vec![],
            seccomp: vec![],
            namespaces: stockade_protocol::container::Namespaces::default(),
            id_mappings: None,
            personality: None,
            memory_policy: None,
            frozen: false,
            freezing: None,
            tmpfs: crate::memory::Tmpfs::default(),
            disks: crate::disks::Disks::default(),
            atomic_volumes: crate::atomic_volumes::AtomicVolumes::default(),
            sockets: crate::sockets::Sockets::default(),
            audience: Audience::default(),
            removal: None,
        };
        let mut process = Process::new(pid, stdio, phase);
        process.channel = Some(Channel { socket: ours, token });
        self.server.processes.insert(key, process);
        self.server.containers.insert(id.container.clone(), container);
        FakeInit { id, channel: theirs.into(), cgroup }
    }

    /// A process that a test has made, as an exec that `requester` has asked for.
    fn add_exec(
        &mut self,
        init: &FakeInit,
        name: &str,
        requester: Token,
        pid: Pid,
        stdio: Stdio,
    ) -> ProcessId {
        let id = ProcessId { exec: Some(name.to_owned()), ..init.id.clone() };
        let mut process = Process::new(pid, stdio, Phase::Created);
        process.requester = Some(requester);
        self.server.processes.insert(Rc::new(id.clone()), process);
        id
    }

    /// The connection that was made last.
    fn newest_connection(&self) -> Token {
        *self.server.connections.keys().next_back().unwrap()
    }

    /// A created container without a process.
    pub fn add_created(&mut self, id: &str) -> (FakeInit, ProcessPipes) {
        let (stdio, pipes) = Stdio::pipes(0).unwrap();
        (self.add(id, Phase::Created, Pid::from_raw(i32::MAX), stdio), pipes)
    }
}

#[expect(clippy::zombie_processes, reason = "the server reaps it")]
fn spawn(script: &str, pipes: ProcessPipes) -> Pid {
    let ProcessPipes { stdin, stdout, stderr } = pipes;
    let child =
        Command::new("sh").args(["-c", script]).stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
    Pid::from_raw(child.id() as i32)
}

impl FakeInit {
    fn was_killed(&self) -> bool {
        fs::read(self.cgroup.path().join("cgroup.kill")).unwrap() == b"1"
    }
}

pub(super) fn receive<T: DeserializeOwned>(host: &mut UnixStream) -> T {
    frame::read(host, GUEST_LIMIT).unwrap().expect("the agent closed the connection")
}

/// True where nothing more comes.
pub(super) fn is_closed(host: &mut UnixStream) -> bool {
    matches!(host.read(&mut [0; 64]), Ok(0))
}

fn start(init: &FakeInit) -> Request {
    Request::Start(ProcessId { container: init.id.container.clone(), exec: None })
}

fn kind(response: Response) -> ErrorKind {
    match response {
        Response::Error(error) => error.kind,
        other => panic!("{other:?} is no error"),
    }
}

#[test]
fn what_is_no_greeting_ends_the_connection_and_nothing_else() {
    let mut guest = Guest::new();
    let mut control = guest.greet(Purpose::Control).unwrap();
    for bytes in
        [&b"GET / HTTP/1.0\r\n\r\n"[..], b"\xff\xff\xff\xff", b"\x06\0\0\0NOPE\x01\x00", b"\x02\0\0\0ST"]
    {
        let mut host = guest.connect();
        host.write_all(bytes).unwrap();
        guest.settle();
        assert!(is_closed(&mut host), "{bytes:?}");
    }
    let unknown = guest.ask(&mut control, Request::State { container: "none".into() });
    assert_eq!(kind(unknown), ErrorKind::NotFound);
    assert_eq!(guest.server.connections.len(), 1);
}

#[test]
fn another_version_is_refused_with_its_reason() {
    let mut guest = Guest::new();
    let mut host = guest.connect();
    guest.tell(&mut host, &Hello { version: VERSION + 1, ..Hello::new(Purpose::Control) });
    let HelloReply::Refused(refusal) = receive(&mut host) else { panic!("welcome") };
    assert_eq!(refusal.kind, ErrorKind::Version);
    assert!(is_closed(&mut host));
}

#[test]
fn requests_that_arrive_together_are_answered_in_order() {
    let mut guest = Guest::new();
    let (init, _pipes) = guest.add_created("c");
    let mut control = guest.connect();
    frame::write(&mut control, &Hello::new(Purpose::Control)).unwrap();
    frame::write(&mut control, &Request::State { container: "c".into() }).unwrap();
    frame::write(&mut control, &start(&init)).unwrap();
    frame::write(&mut control, &Request::State { container: "c".into() }).unwrap();
    guest.settle();
    assert_eq!(receive::<HelloReply>(&mut control), HelloReply::Welcome);
    assert_eq!(receive::<Response>(&mut control), Response::State(ContainerState::Created));
    // Start waits for the init, and State behind it.
    assert!(frame::read::<Response>(&mut control, GUEST_LIMIT).is_err());
    drop(init.channel);
    guest.settle();
    assert_eq!(receive::<Response>(&mut control), Response::Started);
    assert_eq!(receive::<Response>(&mut control), Response::State(ContainerState::Running));
}

#[test]
fn a_start_releases_the_init_and_ends_with_its_execve() {
    let mut guest = Guest::new();
    let (mut init, _pipes) = guest.add_created("c");
    let mut control = guest.greet(Purpose::Control).unwrap();
    guest.tell(&mut control, &start(&init));
    let mut byte = [7];
    init.channel.read_exact(&mut byte).unwrap();
    // execve closes the channel.
    init.channel.shutdown(std::net::Shutdown::Both).unwrap();
    guest.settle();
    assert_eq!(receive::<Response>(&mut control), Response::Started);
    assert_eq!(kind(guest.ask(&mut control, start(&init))), ErrorKind::WrongState);
}

#[test]
fn an_init_that_has_been_killed_cannot_be_started() {
    let mut guest = Guest::new();
    let (init, _pipes) = guest.add_created("c");
    let mut control = guest.greet(Purpose::Control).unwrap();
    // Its end of the channel; that it is gone itself is not known yet.
    init.channel.shutdown(std::net::Shutdown::Both).unwrap();
    let Response::Error(error) = guest.ask(&mut control, start(&init)) else { panic!("it was started") };
    assert_eq!(
        (error.kind, error.message.contains("cannot start")),
        (ErrorKind::WrongState, true),
        "{error}"
    );
}

#[test]
fn a_failed_execve_is_the_answer_to_start() {
    let mut guest = Guest::new();
    let (mut init, _pipes) = guest.add_created("c");
    let mut control = guest.greet(Purpose::Control).unwrap();
    guest.tell(&mut control, &start(&init));
    let failure = error(ErrorKind::NotExecutable, "exec /x: exec format error");
    let report: std::result::Result<Vec<String>, AgentError> = Err(failure.clone());
    init.channel.write_all(&frame::encode(&report).unwrap()).unwrap();
    guest.settle();
    assert_eq!(receive::<Response>(&mut control), Response::Error(failure));
}

#[test]
fn the_end_is_reported_after_the_last_byte_of_output() {
    const OUTPUT: usize = 50_000;
    let mut guest = Guest::new();
    let (stdio, pipes) = Stdio::pipes(0).unwrap();
    // It fits into the pipe, so that the process ends before anybody reads.
    let pid = spawn(&format!("head -c {OUTPUT} /dev/zero; exit 3"), pipes);
    let init = guest.add("c", Phase::Running, pid, stdio);
    let mut process = guest.greet(Purpose::Process(init.id.clone())).unwrap();
    let mut control = guest.greet(Purpose::Control).unwrap();
    // A connection that is full.
    let (mut ours, mut output) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut expected = OUTPUT;
    while let Ok(count) = ours.write(&[0; 1024]) {
        expected += count;
    }
    let id = Rc::new(init.id.clone());
    guest.server.processes.get_mut(&id).unwrap().stdio.attach(Stream::Stdout, ours.into());
    guest.server.watch_stream(&id, Stream::Stdout);

    guest.await_end(pid);
    let stopped = guest.ask(&mut control, Request::State { container: "c".into() });
    assert_eq!(stopped, Response::State(ContainerState::Stopped(ExitStatus::Exited(3))));
    assert!(frame::read::<ProcessEvent>(&mut process, GUEST_LIMIT).is_err(), "told before the output");

    let (mut received, mut bytes) = (0, [0; 1024]);
    while received < expected {
        received += output.read(&mut bytes).unwrap();
        guest.settle();
    }
    assert_eq!(receive::<ProcessEvent>(&mut process), ProcessEvent::Ended(ExitStatus::Exited(3)));
    assert_eq!(output.read(&mut bytes).unwrap(), 0);
    let signal = Request::Signal { container: "c".into(), signal: 15, all: false };
    assert_eq!(kind(guest.ask(&mut control, signal)), ErrorKind::NoProcess);
}

#[test]
fn a_dropped_process_connection_kills_what_it_stood_for() {
    let mut guest = Guest::new();
    let (init, _pipes) = guest.add_created("c");
    let process = guest.greet(Purpose::Process(init.id.clone())).unwrap();
    let second = guest.greet(Purpose::Process(init.id.clone())).unwrap_err();
    assert_eq!(second.kind, ErrorKind::Exists);
    guest.settle();
    assert!(!init.was_killed());
    drop(process);
    guest.settle();
    assert!(init.was_killed());
}

#[test]
fn a_connection_of_a_forgotten_process_leaves_its_namesake_alone() {
    let mut guest = Guest::new();
    let (first, _pipes) = guest.add_created("c");
    let old = guest.greet(Purpose::Process(first.id)).unwrap();
    let (second, _pipes) = guest.add_created("c");
    drop(old);
    guest.settle();
    assert!(!second.was_killed());
}

#[test]
fn a_malformed_command_ends_the_process_connection_and_so_the_process() {
    let mut guest = Guest::new();
    let (init, _pipes) = guest.add_created("c");
    let mut process = guest.greet(Purpose::Process(init.id.clone())).unwrap();
    guest.tell(&mut process, &ProcessCommand::Signal(0));
    assert!(!init.was_killed());
    process.write_all(b"\x01\0\0\0\xff").unwrap();
    guest.settle();
    assert!(init.was_killed());
}

#[test]
fn streams_are_attached_once_and_before_the_start() {
    let mut guest = Guest::new();
    let (init, _pipes) = guest.add_created("c");
    let stream = |stream| Purpose::Stream(init.id.clone(), stream);
    let _output = guest.greet(stream(Stream::Stdout)).unwrap();
    assert_eq!(guest.greet(stream(Stream::Stdout)).unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(guest.greet(stream(Stream::Terminal)).unwrap_err().kind, ErrorKind::NotFound);
    let mut control = guest.greet(Purpose::Control).unwrap();
    guest.tell(&mut control, &start(&init));
    assert_eq!(guest.greet(stream(Stream::Stderr)).unwrap_err().kind, ErrorKind::WrongState);
    let unknown = ProcessId { container: "none".into(), exec: None };
    assert_eq!(guest.greet(Purpose::Process(unknown)).unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn bytes_sent_before_the_welcome_are_not_taken_for_input() {
    let mut guest = Guest::new();
    let (init, pipes) = guest.add_created("c");
    let mut host = guest.connect();
    frame::write(&mut host, &Hello::new(Purpose::Stream(init.id.clone(), Stream::Stdin))).unwrap();
    host.write_all(b"early").unwrap();
    guest.settle();
    assert_eq!(receive::<HelloReply>(&mut host), HelloReply::Welcome);
    assert!(is_closed(&mut host));
    guest.server.processes.clear();
    assert_eq!(File::from(pipes.stdin).read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn delete_answers_when_the_init_is_reaped_and_its_cgroup_gone() {
    let mut guest = Guest::new();
    let (stdio, pipes) = Stdio::pipes(0).unwrap();
    let pid = spawn("exec sleep 1000", pipes);
    let init = guest.add("c", Phase::Running, pid, stdio);
    let mut process = guest.greet(Purpose::Process(init.id.clone())).unwrap();
    let mut control = guest.greet(Purpose::Control).unwrap();
    // A directory that is not there stands for a cgroup that is gone.
    init.cgroup.close().unwrap();
    guest.tell(&mut control, &Request::Delete { container: "c".into() });
    assert!(frame::read::<Response>(&mut control, GUEST_LIMIT).is_err(), "answered before the end");

    crate::signal::send(pid, libc::SIGKILL).unwrap();
    guest.await_end(pid);
    assert!(guest.server.containers.is_empty());
    assert_eq!(receive::<Response>(&mut control), Response::Deleted);
    assert_eq!(receive::<ProcessEvent>(&mut process), ProcessEvent::Ended(ExitStatus::Signalled(9)));
    assert!(guest.server.processes.is_empty());
    let again = guest.ask(&mut control, Request::Delete { container: "c".into() });
    assert_eq!(kind(again), ErrorKind::NotFound);
}

#[test]
fn a_report_that_cannot_be_read_fails_the_creation() {
    let mut guest = Guest::new();
    let mut control = guest.greet(Purpose::Control).unwrap();
    let token = *guest.server.connections.keys().next().unwrap();
    let mut init = guest.add("c", Phase::Creating(token), Pid::from_raw(i32::MAX), Stdio::default());
    assert_eq!(kind(guest.state(&mut control, &init)), ErrorKind::WrongState);
    init.channel.write_all(b"\x04\0\0\0junk").unwrap();
    guest.settle();
    assert!(init.was_killed());
    assert!(guest.server.containers["c"].removal.is_some());
}

#[test]
fn an_exec_whose_connection_is_dropped_is_killed_alone_and_forgotten() {
    let mut guest = Guest::new();
    let (init, _pipes) = guest.add_created("c");
    let _control = guest.greet(Purpose::Control).unwrap();
    let requester = guest.newest_connection();
    let (stdio, pipes) = Stdio::pipes(0).unwrap();
    let pid = spawn("exec sleep 1000", pipes);
    let exec = guest.add_exec(&init, "e", requester, pid, stdio);
    let process = guest.greet(Purpose::Process(exec.clone())).unwrap();
    drop(process);
    guest.settle();
    guest.await_end(pid);
    assert!(!init.was_killed());
    assert_eq!(guest.server.processes.keys().map(|id| (**id).clone()).collect::<Vec<_>>(), [init.id]);
}

#[test]
fn an_exec_that_nobody_stands_for_ends_with_the_connection_that_asked_for_it() {
    let mut guest = Guest::new();
    let (init, _pipes) = guest.add_created("c");
    let control = guest.greet(Purpose::Control).unwrap();
    let requester = guest.newest_connection();
    let (stdio, pipes) = Stdio::pipes(0).unwrap();
    let pid = spawn("exec sleep 1000", pipes);
    guest.add_exec(&init, "e", requester, pid, stdio);
    drop(control);
    guest.settle();
    guest.await_end(pid);
    assert_eq!(guest.server.processes.len(), 1);
}

#[test]
fn an_exec_is_forgotten_once_its_end_is_known() {
    let mut guest = Guest::new();
    let (init, _pipes) = guest.add_created("c");
    let control = guest.greet(Purpose::Control).unwrap();
    let requester = guest.newest_connection();
    let (stdio, pipes) = Stdio::pipes(0).unwrap();
    let pid = spawn("exec sleep 1000", pipes);
    let exec = guest.add_exec(&init, "e", requester, pid, stdio);
    let mut process = guest.greet(Purpose::Process(exec.clone())).unwrap();
    // From now on it lives by its own connection.
    drop(control);
    guest.settle();
    guest.tell(&mut process, &ProcessCommand::Signal(libc::SIGTERM));
    guest.await_end(pid);
    assert_eq!(receive::<ProcessEvent>(&mut process), ProcessEvent::Ended(ExitStatus::Signalled(15)));
    assert!(guest.server.processes.contains_key(&exec));
    drop(process);
    guest.settle();
    assert!(!guest.server.processes.contains_key(&exec));
    assert!(!init.was_killed());
}

#[test]
fn an_exec_needs_a_name_of_its_own_and_a_container_that_has_not_ended() {
    let mut guest = Guest::new();
    let (init, _pipes) = guest.add_created("c");
    let mut control = guest.greet(Purpose::Control).unwrap();
    let requester = guest.newest_connection();
    let exec = guest.add_exec(&init, "e", requester, Pid::from_raw(i32::MAX), Stdio::default());
    let mut ask = |guest: &mut Guest, id| {
        let process = stockade_protocol::container::Process {
            args: vec!["true".into()],
            env: vec![],
            cwd: "/".into(),
            user: Default::default(),
            capabilities: None,
            rlimits: vec![],
            no_new_privileges: false,
            oom_score_adj: None,
            terminal: None,
            streams: vec![],
            scheduling: Default::default(),
        };
        let exec = Exec { id, process, cgroup: None, ignore_paused: false };
        kind(guest.ask(&mut control, Request::Exec(Box::new(exec))))
    };
    let named = |container: &str| ProcessId { container: container.into(), exec: Some("f".into()) };
    assert_eq!(ask(&mut guest, init.id.clone()), ErrorKind::Spec);
    assert_eq!(ask(&mut guest, exec), ErrorKind::Exists);
    assert_eq!(ask(&mut guest, named("d")), ErrorKind::NotFound);
    guest.server.processes.get_mut(&init.id).unwrap().phase = Phase::Stopped(ExitStatus::Exited(0));
    assert_eq!(ask(&mut guest, named("c")), ErrorKind::WrongState);
}

#[test]
fn a_pause_that_nobody_waits_for_any_more_is_taken_back() {
    let mut guest = Guest::new();
    let init = guest.add("c", Phase::Running, Pid::from_raw(i32::MAX), Stdio::default());
    let freeze = init.cgroup.path().join("cgroup.freeze");
    fs::write(&freeze, "0").unwrap();
    // It can be watched as the kernel's file can, and never says that all are frozen.
    std::os::unix::fs::symlink("/proc/self/mounts", init.cgroup.path().join("cgroup.events")).unwrap();
    let pause = || Request::Pause { container: "c".into() };
    let mut first = guest.greet(Purpose::Control).unwrap();
    let mut second = guest.greet(Purpose::Control).unwrap();

    assert_eq!(
        kind(guest.ask(&mut second, Request::Resume { container: "c".into() })),
        ErrorKind::WrongState
    );
    guest.tell(&mut first, &pause());
    assert_eq!(fs::read_to_string(&freeze).unwrap(), "1");
    assert_eq!(kind(guest.ask(&mut second, pause())), ErrorKind::WrongState);
    drop(first);
    guest.settle();
    assert_eq!(fs::read_to_string(&freeze).unwrap(), "0");
    assert_eq!(guest.state(&mut second, &init), Response::State(ContainerState::Running));
    assert_eq!(guest.server.connections.len(), 1);

    // And one that the container's end or deletion forestalls is answered.
    guest.tell(&mut second, &pause());
    let mut third = guest.greet(Purpose::Control).unwrap();
    guest.tell(&mut third, &Request::Delete { container: "c".into() });
    assert_eq!(kind(receive(&mut second)), ErrorKind::NoProcess);
}
