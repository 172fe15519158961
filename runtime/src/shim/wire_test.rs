use std::thread;

use super::*;

#[test]
fn frames_come_in_pieces_of_any_size() {
    let request = Request { service: "s".to_owned(), method: "m".to_owned(), payload: vec![1, 2, 3] };
    let bytes = [frame(1, REQUEST, &request), frame(3, REQUEST, &request)].concat();
    // The header as ttrpc's specification has it.
    assert_eq!(bytes[..10], [0, 0, 0, 11, 0, 0, 0, 1, 1, 0]);
    for size in 1..=bytes.len() {
        let mut incoming = Incoming::default();
        let mut found = Vec::new();
        for piece in bytes.chunks(size) {
            incoming.extend(piece);
            while let Some(frame) = incoming.next().expect("frames") {
                found.push(frame);
            }
        }
        assert_eq!(found.iter().map(|frame| frame.stream).collect::<Vec<_>>(), [1, 3]);
        assert!(found.iter().all(|frame| Request::decode(&*frame.message).expect("request") == request));
    }
}

#[test]
fn a_message_that_is_too_long_ends_the_connection() {
    let mut incoming = Incoming::default();
    incoming.extend(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1, 0]);
    assert!(incoming.next().is_err());
}

#[test]
fn nothing_that_a_guest_says_steers_the_terminal_of_containerds_client() {
    let of_guest = anyhow::anyhow!("\u{1b}]0;mine\u{7}\u{9b}2J\u{202e}");
    assert_eq!(Refusal::from(of_guest).message, "\\u{1b}]0;mine\\u{7}\\u{9b}2J\\u{202e}");
}

#[test]
fn a_call_gets_its_answer_or_the_refusal() {
    let (near, far) = UnixStream::pair().expect("pair");
    let server = thread::spawn(move || {
        let connection = Connection::new(far).expect("connection");
        let mut incoming = Incoming::default();
        for answer in [Ok(vec![7]), Err(Refusal::new(Code::NotFound, "nowhere"))] {
            let frame = loop {
                match incoming.next().expect("frame") {
                    Some(frame) => break frame,
                    None => assert!(connection.read(&mut incoming).expect("read")),
                }
            };
            let (request, reply) = request(&connection, &frame).expect("a request");
            assert_eq!(request.method, "Forward");
            reply.send(answer);
        }
    });
    let request = Request { service: "s".to_owned(), method: "Forward".to_owned(), payload: Vec::new() };
    assert_eq!(call(&near, 1, &request).expect("answer"), Ok(vec![7]));
    assert_eq!(call(&near, 3, &request).expect("answer").expect_err("refusal").message, "nowhere");
    server.join().expect("server");
}
