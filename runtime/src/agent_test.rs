use super::*;
use proptest::prelude::*;
use std::io::Write;
use std::os::unix::net::UnixListener;
use stockade_protocol::agent::ErrorKind;

/// A folder with an agent that reads a greeting, answers with `bytes`, and closes.
fn agent_that_answers(bytes: Vec<u8>) -> (tempfile::TempDir, std::thread::JoinHandle<()>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join(AGENT_SOCKET)).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        frame::read::<Hello>(&mut stream, frame::HOST_LIMIT).unwrap();
        // The client may have closed on the first bytes already.
        let _ = stream.write_all(&bytes);
    });
    (folder, thread)
}

fn greet(bytes: Vec<u8>) -> Result<Connection, ClientError> {
    let (folder, thread) = agent_that_answers(bytes);
    let opened = std::fs::File::open(folder.path()).unwrap();
    let mut wait = Visitor::new(opened.as_fd(), Duration::from_secs(10));
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
fn an_announced_gigabyte_is_not_buffered() {
    let error = greet((1u32 << 30).to_le_bytes().to_vec()).unwrap_err();
    assert!(matches!(error, ClientError::Frame(FrameError::TooLong { .. })), "{error}");
}

#[test]
fn a_silent_agent_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(folder.path().join(AGENT_SOCKET)).unwrap();
    let opened = std::fs::File::open(folder.path()).unwrap();
    let mut wait = Visitor::new(opened.as_fd(), Duration::from_millis(1));
    let error = Connection::open(opened.as_fd(), Purpose::Control, &mut wait).unwrap_err();
    assert!(matches!(error, ClientError::Machine(MachineError::Silent { .. })), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = greet(bytes);
    }
}
