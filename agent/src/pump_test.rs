use std::{
    fs::File,
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};

use super::*;

fn pipe() -> (Rc<OwnedFd>, File) {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    (Rc::new(read), File::from(write))
}

/// Our end, non-blocking, and the host's.
fn socket() -> (Rc<OwnedFd>, UnixStream) {
    let (ours, host) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Rc::new(ours.into()), host)
}

fn pumps(source: &Rc<OwnedFd>, sink: &Rc<OwnedFd>) -> [Pump; 2] {
    [Pump::splice(source.clone(), sink.clone()), Pump::copy(source.clone(), sink.clone())]
}

#[test]
fn moves_all_up_to_the_end_of_the_source() {
    for kind in 0..2 {
        let (source, mut writer) = pipe();
        let (sink, mut host) = socket();
        let mut pump = pumps(&source, &sink).into_iter().nth(kind).unwrap();
        assert_eq!(pump.run(), Progress::Blocked);
        writer.write_all(b"hello").unwrap();
        assert_eq!(pump.run(), Progress::Blocked);
        writer.write_all(b" world").unwrap();
        drop(writer);
        assert_eq!(pump.run(), Progress::Finished);
        drop((pump, source, sink));
        let mut received = String::new();
        host.read_to_string(&mut received).unwrap();
        assert_eq!(received, "hello world");
    }
}

#[test]
fn waits_for_a_slow_sink_and_loses_nothing() {
    for kind in 0..2 {
        let (source, mut writer) = pipe();
        let (sink, mut host) = socket();
        let mut pump = pumps(&source, &sink).into_iter().nth(kind).unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|number| (number / 3) as u8).collect();
        let expected = sent.clone();
        let feeder = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            host.read_to_end(&mut received).unwrap();
            received
        });
        while pump.run() != Progress::Finished {
            std::thread::yield_now();
        }
        drop((pump, source, sink));
        feeder.join().unwrap();
        assert!(reader.join().unwrap() == expected);
    }
}

#[test]
fn others_have_their_turn() {
    let zeros = Rc::new(OwnedFd::from(File::open("/dev/zero").unwrap()));
    assert_eq!(Pump::discard(zeros).run(), Progress::Yielded);
}

#[test]
fn a_sink_that_is_gone_breaks_it() {
    for kind in 0..2 {
        let (source, mut writer) = pipe();
        let (sink, host) = socket();
        drop(host);
        writer.write_all(b"x").unwrap();
        // The test harness ignores SIGPIPE, as the agent does.
        assert_eq!(pumps(&source, &sink)[kind].run(), Progress::Broken);
    }
}

#[test]
fn settles_after_the_content_and_goes_on_while_the_pipe_stays_open() {
    for kind in 0..2 {
        let (source, mut writer) = pipe();
        let (sink, mut host) = socket();
        let mut pump = pumps(&source, &sink).into_iter().nth(kind).unwrap();
        writer.write_all(b"last words").unwrap();
        pump.settle_after_content();
        assert!(!pump.is_settled());
        assert_eq!(pump.run(), Progress::Blocked);
        assert!(pump.is_settled());
        assert_eq!(pump.moved(), 10);
        writer.write_all(b" of another process").unwrap();
        assert_eq!(pump.run(), Progress::Blocked);
        drop(writer);
        assert_eq!(pump.run(), Progress::Finished);
        drop((pump, source, sink));
        let mut received = String::new();
        host.read_to_string(&mut received).unwrap();
        assert_eq!(received, "last words of another process");
    }
}

#[test]
fn a_pipe_that_nobody_holds_is_finished_and_not_settled() {
    let (source, mut writer) = pipe();
    writer.write_all(b"last words").unwrap();
    drop(writer);
    let mut pump = Pump::discard(source);
    pump.settle_after_content();
    assert_eq!(pump.run(), Progress::Finished);
    assert!(!pump.is_settled());
}
