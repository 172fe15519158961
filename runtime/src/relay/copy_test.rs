use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Drives a copy until it is done, or until it would wait for longer than an instant.
fn drive(copy: &mut Copy) {
    loop {
        let (fd, flags) = match copy.waits() {
            None => return,
            Some(Waits::Readable(fd)) => (fd, PollFlags::POLLIN),
            Some(Waits::Writable(fd)) => (fd, PollFlags::POLLOUT),
        };
        if poll(&mut [PollFd::new(fd, flags)], PollTimeout::ZERO).unwrap() == 0 {
            return;
        }
        copy.advance();
    }
}

#[test]
fn everything_arrives_and_then_the_end() {
    let (source, mut writer) = std::io::pipe().unwrap();
    let (mut reader, sink) = UnixStream::pair().unwrap();
    let mut copy = Copy::new(source, sink, true).unwrap();
    writer.write_all(b"hello").unwrap();
    drop(writer);
    drive(&mut copy);
    assert!(copy.is_done());
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

fn slow_reader(non_blocking: bool) {
    let (mut writer, source) = UnixStream::pair().unwrap();
    let (mut reader, sink) = std::io::pipe().unwrap();
    source.set_nonblocking(non_blocking).unwrap();
    let mut copy = Copy::new(source, sink, false).unwrap();
    assert_eq!(matches!(copy.means, Means::Splice { .. }), non_blocking);
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let mut received = Vec::new();
    writer.set_nonblocking(true).unwrap();
    let mut rest = &sent[..];
    let mut buffer = vec![0; 8192];
    while received.len() < sent.len() {
        while let Ok(length) = writer.write(rest)
            && length > 0
        {
            rest = &rest[length..];
        }
        drive(&mut copy);
        let length = reader.read(&mut buffer).unwrap();
        received.extend_from_slice(&buffer[..length]);
    }
    assert!(received == sent);
    drop(writer);
    drive(&mut copy);
    assert!(copy.is_done());
    assert_eq!(reader.read(&mut buffer).unwrap(), 0);
}

#[test]
fn a_slow_reader_stops_the_writer_and_nothing_is_lost() {
    slow_reader(false);
    slow_reader(true);
}

#[test]
fn a_slow_connection_stops_a_pipe_and_nothing_is_lost() {
    let (source, mut writer) = std::io::pipe().unwrap();
    let (mut reader, sink) = UnixStream::pair().unwrap();
    sink.set_nonblocking(true).unwrap();
    let mut copy = Copy::new(source, sink, true).unwrap();
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    let expected = sent.clone();
    let feeder = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut received = Vec::new();
    let mut buffer = vec![0; 8192];
    while received.len() < expected.len() {
        drive(&mut copy);
        reader.set_nonblocking(true).unwrap();
        if let Ok(length) = reader.read(&mut buffer) {
            received.extend_from_slice(&buffer[..length]);
        }
    }
    feeder.join().unwrap();
    assert!(received == expected);
    while !copy.is_done() {
        drive(&mut copy);
    }
    reader.set_nonblocking(false).unwrap();
    assert_eq!(reader.read(&mut buffer).unwrap(), 0);
}

#[test]
fn a_reader_that_goes_away_is_passed_on() {
    let (mut writer, source) = UnixStream::pair().unwrap();
    let (reader, sink) = UnixStream::pair().unwrap();
    let mut copy = Copy::new(source, sink, false).unwrap();
    drop(reader);
    writer.write_all(b"x").unwrap();
    drive(&mut copy);
    assert!(copy.is_done());
    assert_eq!(writer.write(b"y").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn a_pause_leaves_the_rest_to_another() {
    for is_pipe in [true, false] {
        let (mut writer, source) = UnixStream::pair().unwrap();
        source.set_nonblocking(true).unwrap();
        let (mut reader, sink): (Box<dyn Read>, OwnedFd) = if is_pipe {
            let (reader, sink) = std::io::pipe().unwrap();
            (Box::new(reader), sink.into())
        } else {
            let (reader, sink) = UnixStream::pair().unwrap();
            (Box::new(reader), sink.into())
        };
        let mut copy = Copy::new(source, sink, false).unwrap();
        copy.pause_after(Some(5));
        assert!(!copy.is_done());
        writer.write_all(b"first").unwrap();
        drive(&mut copy);
        assert!(copy.is_done());
        writer.write_all(b" second").unwrap();
        drop(writer);
        let Rest { source, sink, shut_down_sink } = copy.into_rest().unwrap();
        let mut copy = Copy::new(source, sink, shut_down_sink).unwrap();
        drive(&mut copy);
        assert!(copy.is_done() && copy.into_rest().is_none());
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first second");
    }
}
