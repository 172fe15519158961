//! What a hostile agent says.

use stockade_protocol::agent::{AgentError, ErrorKind, Response};

use super::script::{Action, Target};

/// Longest answer that the host takes, in bytes.
const FRAME_LIMIT: u32 = 256 << 10;

/// What would clear a terminal, begin a line that looks like another's, and go on for long.
pub fn nasty(length: usize) -> String {
    "\u{1b}[2J\r\nstockade: all is well\u{9b}\0".chars().cycle().take(length).collect()
}

/// An error of the agent's with this text.
pub fn error(message: String) -> AgentError {
    AgentError { kind: ErrorKind::Internal, message }
}

/// A message of this length that never comes to its end.
pub fn drips() -> Vec<Action> {
    let mut bytes = (200u32 << 10).to_le_bytes().to_vec();
    bytes.resize(200 << 10, 0);
    vec![Action::Drip(bytes, 1000)]
}

/// Answers that are none.
pub fn nonsense() -> Vec<(&'static str, Vec<Action>)> {
    let raw = |bytes: &[u8]| vec![Action::raw(bytes.to_vec())];
    vec![
        ("malformed", raw(&[5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ("empty", raw(&[0, 0, 0, 0])),
        ("too-long", raw(&(FRAME_LIMIT + 1).to_le_bytes())),
        ("of-4-gib", raw(&[0xff; 4])),
        ("cut-off", vec![Action::raw(vec![100, 0, 0, 0, 1, 2, 3]), Action::Close(Target::Asking)]),
        ("closed", vec![Action::Close(Target::Asking)]),
        ("reset", vec![Action::Reset(Target::Asking)]),
        ("another", vec![Action::answer(&Response::CpusSet)]),
        ("nasty", vec![Action::answer(&Response::Error(error(nasty(60_000))))]),
    ]
}
