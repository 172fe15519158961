use super::*;
use std::io::Seek;
use std::os::fd::AsRawFd;
use std::thread::{self, JoinHandle};

use nix::sys::signal::{SigSet, Signal};
use proptest::prelude::*;
use stockade_protocol::agent::ExitStatus;
use stockade_protocol::vmm::{STATUS_LIMIT, Stage, Status};
use stockade_sys::fd_passing;

use crate::sys::descriptors;

/// A relay in a thread, and the other ends of all that it holds.
struct Fixture {
    relay: Option<JoinHandle<u8>>,
    creator: OwnedFd,
    vmm: Option<OwnedFd>,
    process: UnixStream,
    console_log: File,
    stdin: UnixStream,
    stdout: Option<UnixStream>,
    host_stdin: Option<io::PipeWriter>,
    host_stdout: io::PipeReader,
    heir: std::os::unix::net::UnixDatagram,
}

impl Fixture {
    fn new() -> Self {
        let (creator, relay_creator) = descriptors::packet_pair().unwrap();
        let (vmm, lease) = descriptors::packet_pair().unwrap();
        let (process, relay_process) = UnixStream::pair().unwrap();
        let (stdin, relay_stdin) = UnixStream::pair().unwrap();
        let (stdout, relay_stdout) = UnixStream::pair().unwrap();
        let (_, relay_stderr) = UnixStream::pair().unwrap();
        let (stdin_reader, host_stdin) = io::pipe().unwrap();
        let (host_stdout, stdout_writer) = io::pipe().unwrap();
        let (_, stderr_writer) = io::pipe().unwrap();
        let console_log = tempfile::tempfile().unwrap();
        let relay_log = console_log.try_clone().unwrap();
        let (heir, relay_heir) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let relay = thread::spawn(move || {
            let mut usr1 = SigSet::empty();
            usr1.add(Signal::SIGUSR1);
            usr1.thread_block().unwrap();
            let flags = nix::sys::signalfd::SfdFlags::SFD_NONBLOCK;
            let signals = SignalFd::with_flags(&usr1, flags).unwrap();
            let (lease, console_log) = (Some(lease), Some(relay_log));
            let ends = Ends {
                signals,
                creator: relay_creator,
                lease,
                console_log,
                window: None,
                hangs_up: false,
                streams: Vec::new(),
                notifier: None,
                services: Vec::new(),
                watches: Vec::new(),
                adopted: None,
                heir: Some(relay_heir.into()),
            };
            let connections = [relay_process, relay_stdin, relay_stdout, relay_stderr].map(OwnedFd::from);
            let stdio = [stdin_reader.into(), stdout_writer.into(), stderr_writer.into()];
            Relay::new(ends, connections.into(), stdio).unwrap().run().unwrap()
        });
        Self {
            relay: Some(relay),
            creator,
            vmm: Some(vmm),
            process,
            console_log,
            stdin,
            stdout: Some(stdout),
            host_stdin: Some(host_stdin),
            host_stdout,
            heir,
        }
    }

    fn end(&mut self, status: ExitStatus) {
        frame::write(&mut self.process, &ProcessEvent::Ended(status)).unwrap();
    }

    /// What the relay has kept, once it has ended.
    fn console_log(mut self) -> String {
        self.relay.take().unwrap().join().unwrap();
        let mut text = String::new();
        self.console_log.rewind().unwrap();
        self.console_log.read_to_string(&mut text).unwrap();
        text
    }

    fn status(mut self) -> u8 {
        self.relay.take().unwrap().join().unwrap()
    }
}

#[test]
fn the_status_comes_after_all_output() {
    let mut fixture = Fixture::new();
    fixture.end(ExitStatus::Exited(7));
    let mut stdout = fixture.stdout.take().unwrap();
    let output = vec![b'x'; 1 << 20];
    let writer = thread::spawn({
        let output = output.clone();
        move || stdout.write_all(&output).unwrap()
    });
    let mut received = Vec::new();
    fixture.host_stdout.read_to_end(&mut received).unwrap();
    writer.join().unwrap();
    assert!(received == output);
    assert_eq!(fixture.status(), 7);
}

#[test]
fn what_others_hold_is_left_to_the_heir_and_the_relay_ends() {
    let mut fixture = Fixture::new();
    let mut stdout = fixture.stdout.take().unwrap();
    let mut hold = |stream, sent| {
        frame::write(&mut fixture.process, &ProcessEvent::Held { stream, sent }).unwrap();
    };
    // Of what there is not, of what cannot be held, and twice.
    hold(Stream::Extra(7), 0);
    hold(Stream::Terminal, 0);
    hold(Stream::Stdin, u64::MAX);
    hold(Stream::Stdout, 5);
    hold(Stream::Stdout, 5);
    fixture.end(ExitStatus::Exited(7));
    stdout.write_all(b"now, late").unwrap();
    let status = fixture.relay.take().unwrap().join().unwrap();
    assert_eq!(status, 7);
    let mut byte = [9];
    let mut descriptors = Vec::new();
    let length = fd_passing::receive(&fixture.heir, &mut byte, 2, &mut descriptors).unwrap();
    assert_eq!((length, byte, descriptors.len()), (1, [0], 2));
    let more = fd_passing::try_receive(&fixture.heir, &mut byte, 2, &mut Vec::new()).unwrap();
    assert_eq!(more, None, "one stream, once");
    drop(stdout);
    let [source, sink] = <[OwnedFd; 2]>::try_from(descriptors).unwrap();
    let mut copy = Copy::new(source, sink, false).unwrap();
    while !copy.is_done() {
        copy.advance();
    }
    let mut text = String::new();
    fixture.host_stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "now, late");
}

#[test]
fn a_vm_that_is_lost_before_it_has_sent_what_it_promised_ends_the_stream() {
    let mut fixture = Fixture::new();
    let held = ProcessEvent::Held { stream: Stream::Stdout, sent: u64::MAX };
    frame::write(&mut fixture.process, &held).unwrap();
    fixture.stdout.take().unwrap().write_all(b"last words").unwrap();
    fixture.vmm = None;
    let mut text = String::new();
    fixture.host_stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "last words");
    assert_eq!(fixture.status(), KILLED);
}

#[test]
fn stdin_arrives_with_its_end() {
    let mut fixture = Fixture::new();
    fixture.host_stdin.take().unwrap().write_all(b"typed").unwrap();
    let mut text = String::new();
    fixture.stdin.read_to_string(&mut text).unwrap();
    assert_eq!(text, "typed");
    fixture.stdout = None;
    fixture.end(ExitStatus::Signalled(15));
    assert_eq!(fixture.status(), 143);
}

#[test]
fn a_lost_vm_reads_as_killed_and_its_last_output_is_delivered() {
    let mut fixture = Fixture::new();
    fixture.stdout.take().unwrap().write_all(b"last words").unwrap();
    fixture.vmm = None;
    let mut text = String::new();
    fixture.host_stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "last words");
    assert_eq!(fixture.status(), KILLED);
}

/// A VMM that reports this and dies.
fn dies_after(reports: &[Status]) -> String {
    let mut fixture = Fixture::new();
    let vmm = fixture.vmm.take().unwrap();
    for report in reports {
        fd_passing::send(vmm.as_fd(), &postcard::to_stdvec(report).unwrap(), &[]).unwrap();
    }
    drop(vmm);
    drop(fixture.stdout.take());
    fixture.console_log()
}

#[test]
fn a_vmm_that_dies_leaves_its_console_log() {
    let ended = Status::Ended { reason: "the guest reset its machine".into(), console: "panic".into() };
    let log = dies_after(&[Status::Reached(Stage::AgentConnected), ended]);
    assert_eq!(log, "panic\nstockade-vmm: the guest reset its machine\n");
    assert!(dies_after(&[]).contains("without a message"));
}

#[test]
fn a_vmm_that_has_been_taken_over_writes_little_and_leaves_no_descriptors() {
    let mut fixture = Fixture::new();
    let vmm = fixture.vmm.take().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let nonsense = [vec![0xff; 100], vec![1; STATUS_LIMIT + 1], vec![0]];
    for packet in nonsense {
        fd_passing::send(vmm.as_fd(), &packet, &[writer.as_raw_fd()]).unwrap();
    }
    drop((vmm, writer, fixture.stdout.take()));
    assert!(fixture.console_log().len() <= STATUS_LIMIT + 100);
    // The other end is nowhere open.
    let mut rest = Vec::new();
    (&reader).read_to_end(&mut rest).unwrap();
}

#[test]
fn an_agent_that_announces_more_than_an_event_is_at_its_end() {
    let mut fixture = Fixture::new();
    fixture.process.write_all(&(MAX_EVENT as u32 + 1).to_le_bytes()).unwrap();
    fixture.stdout = None;
    assert_eq!(fixture.status(), KILLED);
}

#[test]
fn any_notification_that_may_be_is_taken() {
    let mut fixture = Fixture::new();
    for length in [0, NOTIFY_LIMIT] {
        frame::write(&mut fixture.process, &ProcessEvent::Notify(vec![b'x'; length])).unwrap();
    }
    fixture.stdout = None;
    fixture.end(ExitStatus::Exited(4));
    assert_eq!(fixture.status(), 4);
}

#[test]
fn an_agent_that_reads_no_signals_costs_no_memory() {
    let mut commands = Vec::new();
    for _ in 0..100_000 {
        queue(&mut commands, &ProcessCommand::Signal(15));
    }
    assert!(commands.len() <= MAX_COMMANDS);
}

#[test]
fn a_container_that_ends_leaves_none() {
    let mut fixture = Fixture::new();
    fixture.stdout = None;
    fixture.end(ExitStatus::Exited(0));
    assert_eq!(fixture.console_log(), "");
}

#[test]
fn a_creator_that_dies_before_it_commits_takes_the_relay_along() {
    let mut fixture = Fixture::new();
    let (other, _) = descriptors::packet_pair().unwrap();
    drop(std::mem::replace(&mut fixture.creator, other));
    assert_eq!(fixture.status(), KILLED);
}

#[test]
fn a_creator_that_has_committed_may_go() {
    let mut fixture = Fixture::new();
    Message::Commit.send(fixture.creator.as_fd()).unwrap();
    let (other, _) = descriptors::packet_pair().unwrap();
    drop(std::mem::replace(&mut fixture.creator, other));
    fixture.stdout = None;
    fixture.end(ExitStatus::Exited(3));
    assert_eq!(fixture.status(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn an_agent_that_talks_nonsense_is_an_end(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut fixture = Fixture::new();
        fixture.process.write_all(&bytes).unwrap();
        fixture.process.shutdown(std::net::Shutdown::Both).unwrap();
        fixture.stdout = None;
        fixture.status();
    }
}
