//! A hostile peer: all that it says is there from the start, and it says no more.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use stockade_protocol::{agent, frame, vmm};

use crate::sys::deadline::Deadline;
use crate::vm::Wait;
use crate::vm::agent::AnswerDeadline;

/// Longer than any answer takes that is there already.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Two ends of a connection: the runtime's, and the peer's, which reads nothing.
pub fn saying(words: &[u8]) -> (UnixStream, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    // What the socket does not hold is not said.
    let _ = theirs.write(words);
    theirs.shutdown(Shutdown::Write).unwrap();
    (ours, theirs)
}

/// How the runtime waits for what is there already.
pub fn wait() -> impl Wait {
    AnswerDeadline::without_reason(Deadline::within(TIMEOUT))
}

/// What an agent says that has welcomed the connection.
pub fn welcomed(words: &[u8]) -> Vec<u8> {
    let mut all = frame::encode(&agent::HelloReply::Welcome).unwrap();
    all.extend(words);
    all
}

/// The same of a VMM.
pub fn welcomed_by_vmm(words: &[u8]) -> Vec<u8> {
    let mut all = frame::encode(&vmm::HelloReply::Welcome).unwrap();
    all.extend(words);
    all
}

/// The input cut in two, at the place that its first two bytes name.
pub fn halves(input: &[u8]) -> (&[u8], &[u8]) {
    match input.split_first_chunk() {
        Some((place, rest)) => rest.split_at(usize::from(u16::from_le_bytes(*place)).min(rest.len())),
        None => (&[], &[]),
    }
}
