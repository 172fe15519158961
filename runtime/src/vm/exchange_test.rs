use super::*;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use proptest::prelude::*;
use stockade_protocol::vmm::{Request, Response, call};

use crate::vm::Control;
use crate::vm::control::ControlError;

const LONG: Duration = Duration::from_secs(60);

/// A VMM at a socket of this name that reads as many bytes as `expected` has and says `answer`; joined, it gives what it has read.
fn vmm(directory: &Path, name: &str, expected: usize, answer: Vec<u8>) -> JoinHandle<Vec<u8>> {
    let listener = UnixListener::bind(directory.join(name)).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut read = vec![0; expected];
        stream.read_exact(&mut read).unwrap();
        // The client may have closed on the first bytes already.
        let _ = stream.write_all(&answer);
        read
    })
}

fn frame<T: Serialize>(message: &T) -> Vec<u8> {
    frame::encode(message).unwrap()
}

fn ask(directory: &Path) -> Result<u32, ControlError> {
    let opened = fs::File::open(directory).unwrap();
    Control::connect_by(opened.as_fd(), Deadline::within(LONG)).unwrap().call(call::Memory())
}

#[test]
fn a_hello_goes_with_the_first_request_and_its_reply_comes_with_the_answer() {
    let directory = tempfile::tempdir().unwrap();
    let expected = [frame(&Hello::new(VERSION)), frame(&Request::Memory)].concat();
    let answer = [frame(&HelloReply::Welcome), frame(&Response::Memory { mib: 300 })].concat();
    let vmm = vmm(directory.path(), CONTROL_SOCKET, expected.len(), answer);
    assert_eq!(ask(directory.path()).unwrap(), 300);
    assert_eq!(vmm.join().unwrap(), expected);
}

#[test]
fn a_vmm_of_0_1_gets_no_hello() {
    let directory = tempfile::tempdir().unwrap();
    let expected = frame(&Request::Memory);
    let vmm =
        vmm(directory.path(), CONTROL_SOCKET_OF_0_1, expected.len(), frame(&Response::Memory { mib: 300 }));
    assert_eq!(ask(directory.path()).unwrap(), 300);
    assert_eq!(vmm.join().unwrap(), expected);
}

#[test]
fn a_vmm_of_0_1_is_not_asked_what_it_does_not_know() {
    let directory = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(directory.path().join(CONTROL_SOCKET_OF_0_1)).unwrap();
    let opened = fs::File::open(directory.path()).unwrap();
    let mut control = Control::connect(opened.as_fd()).unwrap();
    let error = control.call(call::Failures()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "vmm.sock speaks version 1 of stockade's VMM protocol, but this stockade needs version 2: another release has started this \
         VM; use that release, or delete the container and its pod (`stockade delete --force`) and create them anew"
    );
    // Nor is today's what only that of 0.1 did.
    let directory = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(directory.path().join(CONTROL_SOCKET)).unwrap();
    let opened = fs::File::open(directory.path()).unwrap();
    let mut control = Control::connect(opened.as_fd()).unwrap();
    let error = control.call(call::AddShare("c".into())).unwrap_err();
    assert!(error.to_string().starts_with("vmm-2.sock speaks version 2"), "{error}");
}

/// As a VMM that its guest has taken over.
#[test]
fn no_answer_makes_the_runtime_speak_an_older_version() {
    let ours = [frame(&Hello::new(VERSION)), frame(&Request::Memory)].concat();
    let answers: [(Vec<u8>, &str); 5] = [
        (frame(&HelloReply::Refused { oldest: 1, newest: 1 }), "speaks version 1"),
        (frame(&HelloReply::Refused { oldest: 3, newest: 300 }), "speaks versions 3 to 300"),
        // An answer without a welcome, as from 0.1: Done is read as a welcome, and then nothing follows.
        (frame(&Response::Done), "closed its control connection"),
        (frame(&Response::Memory { mib: 300 }), "malformed message"),
        (vec![0xff; 8], "over the limit"),
    ];
    for (answer, expected) in answers {
        let directory = tempfile::tempdir().unwrap();
        // The only one that is there besides: nobody may turn to it.
        let older = UnixListener::bind(directory.path().join(CONTROL_SOCKET_OF_0_1)).unwrap();
        older.set_nonblocking(true).unwrap();
        let vmm = vmm(directory.path(), CONTROL_SOCKET, ours.len(), answer);
        let error = ask(directory.path()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.to_string().lines().count(), 1);
        assert_eq!(vmm.join().unwrap(), ours);
        assert_eq!(older.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn a_welcome_that_drips_is_over_by_the_deadline_of_the_command() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join(CONTROL_SOCKET)).unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut answer = (200u32 << 10).to_le_bytes().to_vec();
        answer.resize(200 << 10, 0);
        crate::sys::deadline::tests::drip(stream, answer);
    });
    let opened = fs::File::open(directory.path()).unwrap();
    let began = Instant::now();
    let deadline = Deadline::within(Duration::from_millis(300));
    let mut control = Control::connect_by(opened.as_fd(), deadline).unwrap();
    assert!(matches!(control.call(call::Memory()), Err(ControlError::Frame(FrameError::Io(_)))));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_vm_of_a_newer_release_gets_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(directory.path().join("vmm-3.sock")).unwrap();
    let opened = fs::File::open(directory.path()).unwrap();
    let error = Control::connect(opened.as_fd()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "vmm-3.sock speaks version 3 of stockade's VMM protocol, but this stockade needs versions 1 to 2: another release has \
         started this VM; use that release, or delete the container and its pod (`stockade delete --force`) and create them \
         anew"
    );
    let none = tempfile::tempdir().unwrap();
    let opened = fs::File::open(none.path()).unwrap();
    assert_eq!(Control::connect(opened.as_fd()).unwrap_err().kind(), io::ErrorKind::NotFound);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let directory = tempfile::tempdir().unwrap();
        let vmm = vmm(directory.path(), CONTROL_SOCKET, 9, bytes);
        let _ = ask(directory.path());
        vmm.join().unwrap();
    }
}
