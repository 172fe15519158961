use super::*;
use proptest::prelude::*;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;
use stockade_protocol::agent::ErrorKind;

/// A directory with an agent that reads a greeting, answers with `bytes`, and closes.
fn agent_that_answers(bytes: Vec<u8>) -> (tempfile::TempDir, std::thread::JoinHandle<()>) {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join(AGENT_SOCKET)).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        frame::read::<Hello>(&mut stream, frame::HOST_LIMIT).unwrap();
        // The client may have closed on the first bytes already.
        let _ = stream.write_all(&bytes);
    });
    (directory, thread)
}

fn greet(bytes: Vec<u8>) -> Result<Connection, ClientError> {
    let (directory, thread) = agent_that_answers(bytes);
    let opened = std::fs::File::open(directory.path()).unwrap();
    let mut wait = AnswerDeadline::new(opened.as_fd(), Deadline::within(Duration::from_secs(10)));
    let result = Connection::open(opened.as_fd(), Purpose::Control, &mut wait);
    thread.join().unwrap();
    result
}

#[test]
fn nothing_after_the_greeting_is_swallowed() {
    let mut bytes = frame::encode(&HelloReply::Welcome).unwrap();
    bytes.extend_from_slice(b"output");
    let Connection(mut stream) = greet(bytes).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "output");
}

#[test]
fn a_refusal_keeps_its_kind() {
    let refused = AgentError { kind: ErrorKind::Exists, message: "no".to_owned() };
    let error = greet(frame::encode(&HelloReply::Refused(refused.clone())).unwrap()).unwrap_err();
    assert!(matches!(error, ClientError::Agent(error) if error == refused));
}

#[test]
fn a_refusal_is_no_longer_than_a_caller_can_take() {
    let refused = AgentError { kind: ErrorKind::Exists, message: "no".repeat(100_000) };
    let error = greet(frame::encode(&HelloReply::Refused(refused)).unwrap()).unwrap_err();
    assert!(error.to_string().len() < 5_000, "{}", error.to_string().len());
}

#[test]
fn an_agent_of_another_version_gets_one_clear_line() {
    let refused = AgentError { kind: ErrorKind::Version, message: "the agent speaks version 7".to_owned() };
    let error = greet(frame::encode(&HelloReply::Refused(refused)).unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the guest's agent, at agent.sock, does not speak the protocol of this release (the agent speaks version 7), so \
         another release has started this VM: use that release, or delete the container and its pod with `stockade delete \
         --force`"
    );
}

#[test]
fn an_announced_gigabyte_is_not_buffered() {
    let error = greet((1u32 << 30).to_le_bytes().to_vec()).unwrap_err();
    assert!(matches!(error, ClientError::Frame(FrameError::TooLong { .. })), "{error}");
}

#[test]
fn a_silent_agent_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(directory.path().join(AGENT_SOCKET)).unwrap();
    let opened = std::fs::File::open(directory.path()).unwrap();
    let mut wait = AnswerDeadline::new(opened.as_fd(), Deadline::within(Duration::from_millis(1)));
    let error = Connection::open(opened.as_fd(), Purpose::Control, &mut wait).unwrap_err();
    assert!(matches!(error, ClientError::Machine(MachineError::Silent { .. })), "{error}");
}

/// As the agent of a guest that has been taken over: an answer of 200 KiB, a byte at a time.
#[test]
fn an_agent_that_drips_its_answer_is_given_up_as_one_that_is_silent() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join(AGENT_SOCKET)).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        frame::read::<Hello>(&mut stream, frame::HOST_LIMIT).unwrap();
        stream.write_all(&frame::encode(&HelloReply::Welcome).unwrap()).unwrap();
        let mut answer = (200u32 << 10).to_le_bytes().to_vec();
        answer.resize(200 << 10, 0);
        crate::sys::deadline::tests::drip(stream, answer);
    });
    let opened = std::fs::File::open(directory.path()).unwrap();
    let began = std::time::Instant::now();
    let mut wait = AnswerDeadline::new(opened.as_fd(), Deadline::within(Duration::from_millis(500)));
    let mut control = Connection::open(opened.as_fd(), Purpose::Control, &mut wait).unwrap();
    let error = control.call(call::State("evil".into()), &mut wait).unwrap_err();
    assert!(matches!(error, ClientError::Machine(MachineError::Silent { .. })), "{error}");
    // All that the command asks shares the deadline.
    let error = control.call(call::Signal("evil".into(), 9, false), &mut wait).unwrap_err();
    assert!(matches!(error, ClientError::Machine(MachineError::Silent { .. })), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn nobody_waits_for_the_guest_of_a_container_that_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(directory.path().join(AGENT_SOCKET)).unwrap();
    let opened = std::fs::File::open(directory.path()).unwrap();
    let mut relay = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pidfd = Pidfd::open(relay.id() as i32).unwrap();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        relay.kill().unwrap();
        relay.wait().unwrap();
    });
    let mut wait = AnswerDeadline::new(opened.as_fd(), Deadline::within(Duration::from_secs(600)))
        .while_lives(Some(pidfd));
    let error = Connection::open(opened.as_fd(), Purpose::Control, &mut wait).unwrap_err();
    assert!(matches!(error, ClientError::Machine(MachineError::ContainerEnded)), "{error}");
    killer.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = greet(bytes);
    }
}
