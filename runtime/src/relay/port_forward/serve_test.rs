use std::io::Write;
use std::net::Shutdown;

use proptest::prelude::*;

use super::*;

fn soon() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

#[test]
fn an_answer_that_never_ends_is_given_up() {
    let (guest, mut agent) = UnixStream::pair().unwrap();
    // The length of an answer, byte by byte, and then less than it says.
    for byte in 100u32.to_le_bytes() {
        agent.write_all(&[byte]).unwrap();
    }
    agent.write_all(&[1; 50]).unwrap();
    assert!(answer(&guest, Deadline::within(Duration::from_millis(20))).is_err());
}

#[test]
fn a_long_answer_is_not_buffered() {
    let (guest, mut agent) = UnixStream::pair().unwrap();
    agent.write_all(&(REPLY_LIMIT as u32 + 1).to_le_bytes()).unwrap();
    let error = answer(&guest, soon()).unwrap_err();
    assert!(error.to_string().contains("over the limit"), "{error}");
}

proptest! {
    #[test]
    fn an_agent_says_welcome_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let (guest, mut agent) = UnixStream::pair().unwrap();
        agent.write_all(&bytes).unwrap();
        agent.shutdown(Shutdown::Write).unwrap();
        let welcome = frame::encode(&HelloReply::Welcome).unwrap();
        let is_welcome = answer(&guest, soon()).unwrap_or(false);
        prop_assert_eq!(is_welcome, bytes.starts_with(&welcome));
    }
}
