use std::io::Write;
use std::os::unix::net::UnixStream;

use stockade_protocol::agent::{HelloReply, Purpose};
use stockade_protocol::frame;

use super::*;
use crate::sys::deadline::Deadline;
use crate::vm::agent::{AnswerDeadline, Connection};

/// A guest, and its side of the connection.
fn guest() -> (Arc<Guest>, UnixStream) {
    let (here, mut there) = UnixStream::pair().unwrap();
    frame::write(&mut there, &HelloReply::Welcome).unwrap();
    let mut wait = AnswerDeadline::without_reason(Deadline::within(Duration::from_secs(10)));
    let connection = Connection::greet(here, Purpose::Events("c".to_owned()), &mut wait).unwrap();
    (Guest::new(Events::over(connection).unwrap()).unwrap(), there)
}

#[test]
fn a_guest_that_never_stops_telling_is_heard_once_in_a_while() {
    let (guest, mut there) = guest();
    assert_eq!((guest.hear("c", 1), guest.quiet_for()), (News::default(), Duration::ZERO));
    // Half an event is none.
    let event = frame::encode(&ContainerEvent::OutOfMemory { kills: 1 }).unwrap();
    there.write_all(&event[..1]).unwrap();
    assert_eq!((guest.hear("c", 1), guest.quiet_for()), (News::default(), Duration::ZERO));
    there.write_all(&event[1..]).unwrap();
    there.write_all(&event).unwrap();
    assert_eq!(guest.hear("c", 1), News { is_out_of_memory: true, is_over: false });
    assert!(guest.quiet_for() > PACE / 2);
    // Its last words are heard all the same.
    there.write_all(&event).unwrap();
    drop(there);
    assert_eq!(guest.hear("c", 2), News { is_out_of_memory: true, is_over: true });
}
