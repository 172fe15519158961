use std::io::Read;

use stockade_protocol::vmm::{Response, VERSION};

use super::*;

/// What the runtime gets when it begins with these bytes; they come one at a time.
fn told(bytes: &[u8]) -> (io::Result<Greeting>, Vec<u8>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (mut greeting, mut requests) = (Greeting::default(), FrameBuffer::new(100));
    let heard = bytes.iter().try_for_each(|byte| {
        requests.extend(&[*byte]);
        greeting.hear(&mut requests, &ours).map(drop)
    });
    let answered = heard.and_then(|()| greeting.answer(&ours, &Response::Done)).map(|()| greeting);
    drop(ours);
    let mut told = Vec::new();
    theirs.read_to_end(&mut told).unwrap();
    (answered, told)
}

#[test]
fn the_welcome_comes_with_the_first_answer_and_costs_no_other_write() {
    let (greeting, told) = told(&frame::encode(&Hello::new(VERSION)).unwrap());
    assert_eq!(greeting.unwrap(), Greeting::Done);
    let expected = [frame::encode(&HelloReply::Welcome).unwrap(), frame::encode(&Response::Done).unwrap()];
    assert_eq!(told, expected.concat());
    assert_eq!((expected[0].len(), frame::encode(&Hello::new(VERSION)).unwrap().len()), (5, 9));
}

#[test]
fn another_version_is_told_which_are_spoken_and_gets_no_more() {
    for version in [0, 1, VERSION + 1, u16::MAX] {
        let (greeting, told) = told(&frame::encode(&Hello::new(version)).unwrap());
        assert!(greeting.is_err());
        let refusal = HelloReply::Refused { oldest: VERSION, newest: VERSION };
        assert_eq!(told, frame::encode(&refusal).unwrap(), "{version}");
    }
}

#[test]
fn who_does_not_say_hello_is_told_nothing() {
    let not_ours = Hello { magic: *b"STKE", version: VERSION };
    // The second is what a runtime of 0.1 says: Request::Console.
    for bytes in [frame::encode(&not_ours).unwrap(), vec![1, 0, 0, 0, 2], vec![0xff; 8]] {
        let (greeting, told) = told(&bytes);
        assert!(greeting.is_err(), "{bytes:?}");
        assert!(told.is_empty());
    }
}
