//! What this runtime and a pod that 0.1 had started said to each other, byte by byte. `recorded_0_1.txt` was recorded in the lab,
//! between this runtime and a VMM and an agent of 0.1: each line has STEP SOCKET CONNECTION DIRECTION BYTES, with `>` from the
//! runtime. Here VMM and agent only play their part: the runtime has to say every byte again, and to understand every answer.

use super::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use stockade_protocol::agent::ProcessEvent;
use stockade_protocol::frame::{FrameBuffer, HOST_LIMIT};
use stockade_protocol::vmm;

use crate::vm::{CONTROL_SOCKET_OF_0_1, Control};

const RECORDED: &str = include_str!("recorded_0_1.txt");
const LONG: Duration = Duration::from_secs(60);

/// What was said on one connection, in turns: true for what the runtime said.
#[derive(Clone, Debug, Default)]
struct Talk {
    socket: String,
    turns: Vec<(bool, Vec<u8>)>,
}

impl Talk {
    /// The messages of the runtime.
    fn requests(&self) -> FrameBuffer {
        let mut buffer = FrameBuffer::new(HOST_LIMIT);
        self.turns.iter().filter(|(by_runtime, _)| *by_runtime).for_each(|(_, bytes)| buffer.extend(bytes));
        buffer
    }
}

/// The connections of a step, in the order in which they were made.
fn recorded(step: &str) -> Vec<Talk> {
    let mut talks = BTreeMap::<u32, Talk>::new();
    for line in RECORDED.lines() {
        let [of, socket, number, direction, hex] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        if of == step {
            let talk = talks.entry(number.parse().unwrap()).or_default();
            talk.socket = socket.to_owned();
            let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
            talk.turns.push((direction == ">", bytes.collect()));
        }
    }
    talks.into_values().collect()
}

/// Plays the peer's part of all connections to a socket, one after the other; the runtime has to play its own.
fn peer(directory: &Path, socket: &str, talks: &[Talk]) -> JoinHandle<()> {
    let talks: Vec<Talk> = talks.iter().filter(|talk| talk.socket == socket).cloned().collect();
    let listener = UnixListener::bind(directory.join(socket)).unwrap();
    thread::spawn(move || {
        for talk in talks {
            let (stream, _) = listener.accept().unwrap();
            play(&stream, &talk.turns, false);
        }
    })
}

/// Plays the part of the runtime or of its peer; what it hears.
fn play(mut stream: &UnixStream, turns: &[(bool, Vec<u8>)], as_runtime: bool) -> Vec<u8> {
    let mut heard = Vec::new();
    for (by_runtime, bytes) in turns {
        if *by_runtime == as_runtime {
            stream.write_all(bytes).unwrap();
        } else {
            let mut said = vec![0; bytes.len()];
            stream.read_exact(&mut said).unwrap();
            assert_eq!(said, *bytes, "{stream:?}");
            heard.extend(said);
        }
    }
    heard
}

/// Asks the agent again.
fn ask_agent(control: &mut Connection, request: Request, wait: &mut AnswerDeadline<'_>) -> String {
    macro_rules! call {
        ($call:expr) => {
            format!("{:?}", control.call($call, wait).unwrap())
        };
    }
    match request {
        Request::Create(container) => call!(call::Create(*container)),
        Request::Exec(exec) => call!(call::MakeProcess(*exec)),
        Request::Start(process) => call!(call::Start(process)),
        Request::Signal { container, signal, all } => call!(call::Signal(container, signal, all)),
        Request::State { container } => call!(call::State(container)),
        Request::Delete { container } => call!(call::Delete(container)),
        Request::Pause { container } => call!(call::Pause(container)),
        Request::Resume { container } => call!(call::Resume(container)),
        Request::Processes { container } => call!(call::Processes(container)),
        Request::CgroupFiles { container } => call!(call::CgroupFiles(container)),
        Request::Update { container, values } => call!(call::Update(container, values)),
        Request::Network(change) => call!(call::Network(*change)),
        Request::Containers => call!(call::Containers()),
        Request::SetCpus { count } => call!(call::SetCpus(count)),
        Request::Settings(settings) => call!(call::TakeSettings(*settings)),
        Request::Confine { process, confinement } => call!(call::Confine(process, *confinement)),
        Request::Selinux(policy) => call!(call::LoadSelinux(*policy)),
    }
}

/// Asks the VMM again.
fn ask_vmm(control: &mut Control, request: vmm::Request) -> String {
    macro_rules! call {
        ($call:expr) => {
            format!("{:?}", control.call($call).unwrap())
        };
    }
    match request {
        vmm::Request::AddShare { name } => call!(vmm::call::AddShare(name)),
        vmm::Request::RemoveShare { name } => call!(vmm::call::RemoveShare(name)),
        vmm::Request::Console => call!(vmm::call::Console()),
        vmm::Request::Figures => call!(vmm::call::ReadFigures()),
        vmm::Request::Threads => call!(vmm::call::Threads()),
        vmm::Request::Memory => call!(vmm::call::Memory()),
        other => panic!("{other:?} was not recorded"),
    }
}

/// The whole conversation of a step; what is heard, in words.
fn replay(step: &str) -> Vec<String> {
    let talks = recorded(step);
    let directory = tempfile::tempdir().unwrap();
    let peers = [AGENT_SOCKET, CONTROL_SOCKET_OF_0_1].map(|socket| peer(directory.path(), socket, &talks));
    let opened = File::open(directory.path()).unwrap();
    let mut wait = AnswerDeadline::new(opened.as_fd(), Deadline::within(LONG));
    let mut heard = Vec::new();
    for talk in talks {
        let mut requests = talk.requests();
        if talk.socket == CONTROL_SOCKET_OF_0_1 {
            let mut control = Control::connect(opened.as_fd()).unwrap();
            while let Some(request) = requests.next().unwrap() {
                heard.push(ask_vmm(&mut control, request));
            }
            continue;
        }
        let hello: Hello = requests.next().unwrap().unwrap();
        let mut connection = Connection::open(opened.as_fd(), hello.purpose.clone(), &mut wait).unwrap();
        if hello.purpose == Purpose::Control {
            while let Some(request) = requests.next().unwrap() {
                heard.push(ask_agent(&mut connection, request, &mut wait));
            }
            continue;
        }
        // Hello and welcome, and then what is no longer for this client.
        let rest = play(&connection.0, &talk.turns[2..], true);
        if matches!(hello.purpose, Purpose::Process(_)) {
            let mut events = FrameBuffer::new(frame::GUEST_LIMIT);
            events.extend(&rest);
            while let Some(event) = events.next::<ProcessEvent>().unwrap() {
                heard.push(format!("{event:?}"));
            }
        } else if !rest.is_empty() {
            heard.push(String::from_utf8(rest).unwrap());
        }
    }
    for peer in peers {
        peer.join().unwrap();
    }
    heard
}

#[test]
fn processes_run_in_a_pod_of_0_1() {
    assert_eq!(replay("exec"), ["[]", "()", "Ended(Exited(0))", "hello\n"]);
    assert_eq!(replay("exec-in-member"), ["[]", "()", "Ended(Exited(5))", "in\n"]);
    let [processes] = &replay("ps")[..] else { panic!("not one answer") };
    assert!(processes.contains("trap \\\"exit 3\\\" TERM"), "{processes}");
}

#[test]
fn a_container_comes_to_a_pod_of_0_1_and_goes() {
    // Its files are served, it is made, and what it says comes through.
    assert_eq!(replay("create"), ["()", "[]", "Ended(Exited(4))", "mine\n"]);
    assert_eq!(replay("start"), ["()"]);
    let sealed = replay("create-readonly");
    assert_eq!(sealed[..3], ["()", "[]", "1\n"]);
    assert!(sealed[3].contains("Read-only file system"), "{sealed:?}");
    assert_eq!(replay("pause"), ["()", "()"]);
    let [files, updated] = &replay("update")[..] else { panic!("not two answers") };
    assert!(files.contains("pids.current"), "{files}");
    assert_eq!(updated, "()");
    assert!(replay("events")[0].contains("memory.current"));
    assert_eq!(replay("stop"), ["()"]);
    assert_eq!(replay("delete"), ["()", "()"]);
}

#[test]
fn a_vmm_of_0_1_tells_of_itself() {
    let metrics = replay("metrics");
    let expected = ["Figures {", "2048", "[ThreadTime {", "[\"pod\"]", "[(\"cpu.stat\""];
    assert_eq!(metrics.len(), expected.len());
    for (heard, expected) in metrics.iter().zip(expected) {
        assert!(heard.starts_with(expected), "{heard}");
    }
    assert_eq!(replay("logs").len(), 1);
    assert_eq!(replay("stop-pod"), ["()"]);
}

#[test]
fn all_that_was_recorded_is_replayed() {
    let steps: std::collections::BTreeSet<_> =
        RECORDED.lines().filter_map(|line| line.split(' ').next()).collect();
    let replayed = [
        "create",
        "create-readonly",
        "delete",
        "events",
        "exec",
        "exec-in-member",
        "logs",
        "metrics",
        "pause",
        "ps",
        "start",
        "stop",
        "stop-pod",
        "update",
    ];
    assert!(steps.into_iter().eq(replayed));
}
