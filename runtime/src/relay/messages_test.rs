use std::os::fd::AsFd;

use super::*;

#[test]
fn each_arrives_as_it_was_sent() {
    let (ours, theirs) = descriptors::packet_pair().unwrap();
    for message in [
        Message::Trees,
        Message::Prepared,
        Message::Failed("no such namespace".to_owned()),
        Message::Connections,
        Message::Commit,
        Message::Entered,
        Message::GoOn,
    ] {
        message.send(ours.as_fd()).unwrap();
        let (received, descriptors) = Message::receive(theirs.as_fd()).unwrap().unwrap();
        assert_eq!((received, descriptors.len()), (message, 0));
    }
}

#[test]
fn descriptors_come_along_and_a_long_text_is_cut() {
    use std::os::fd::AsRawFd;
    let (ours, theirs) = descriptors::packet_pair().unwrap();
    Message::Trees.send_with(ours.as_fd(), &[theirs.as_raw_fd()]).unwrap();
    assert_eq!(Message::receive(theirs.as_fd()).unwrap().unwrap().1.len(), 1);
    Message::Failed("x".repeat(2 * LIMIT)).send(ours.as_fd()).unwrap();
    let (received, _) = Message::receive(theirs.as_fd()).unwrap().unwrap();
    assert_eq!(received, Message::Failed("x".repeat(LIMIT - 1)));
}

#[test]
fn what_is_no_message_is_none_and_neither_is_the_end() {
    let (ours, theirs) = descriptors::packet_pair().unwrap();
    for packet in [&[0][..], &[8], &[255, 1]] {
        stockade_sys::fd_passing::send(&ours, packet, &[]).unwrap();
        assert!(Message::receive(theirs.as_fd()).unwrap().is_none());
    }
    drop(ours);
    assert!(Message::receive(theirs.as_fd()).unwrap().is_none());
}
