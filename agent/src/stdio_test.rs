use std::{
    fs::File,
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use super::*;

fn attached(stdio: &mut Stdio, stream: Stream) -> UnixStream {
    let (ours, host) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    stdio.can_attach(stream).unwrap();
    stdio.attach(stream, ours.into());
    host
}

fn text(mut from: impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_end_of_the_input_reaches_the_process() {
    let (mut stdio, process) = Stdio::pipes(0).unwrap();
    let mut host = attached(&mut stdio, Stream::Stdin);
    host.write_all(b"input").unwrap();
    host.shutdown(std::net::Shutdown::Write).unwrap();
    stdio.run(Stream::Stdin);
    assert_eq!(text(File::from(process.stdin)), "input");
}

#[test]
fn the_end_of_the_output_reaches_the_host_while_other_streams_go_on() {
    let (mut stdio, process) = Stdio::pipes(0).unwrap();
    let (out, mut err) = (attached(&mut stdio, Stream::Stdout), attached(&mut stdio, Stream::Stderr));
    File::from(process.stdout).write_all(b"output").unwrap();
    stdio.run(Stream::Stdout);
    assert_eq!(text(out), "output");

    File::from(process.stderr).write_all(b"error").unwrap();
    stdio.run(Stream::Stderr);
    let mut bytes = [0; 5];
    err.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"error");
}

#[test]
fn what_was_written_before_the_end_is_drained_and_the_rest_follows() {
    let (mut stdio, process) = Stdio::pipes(0).unwrap();
    let host = attached(&mut stdio, Stream::Stdout);
    let _also = attached(&mut stdio, Stream::Stderr);
    drop(process.stderr);
    let mut survivor = File::from(process.stdout);
    survivor.write_all(b"before").unwrap();
    let streams = stdio.end();
    assert!(!stdio.is_drained());
    for stream in streams {
        stdio.run(stream);
    }
    assert!(stdio.is_drained() && !stdio.is_over());
    assert_eq!(stdio.held(), [(Stream::Stdout, 6)]);
    survivor.write_all(b" and after").unwrap();
    stdio.run(Stream::Stdout);
    drop(survivor);
    stdio.run(Stream::Stdout);
    assert!(stdio.is_over() && stdio.held().is_empty());
    assert_eq!(text(host), "before and after");
}

#[test]
fn without_a_host_input_is_empty_and_output_is_dropped() {
    let (mut stdio, process) = Stdio::pipes(0).unwrap();
    assert_eq!(stdio.settle(), [Stream::Stdout, Stream::Stderr]);
    assert_eq!(text(File::from(process.stdin)), "");
    let mut out = File::from(process.stdout);
    for _ in 0..8 {
        // More than a pipe holds.
        out.write_all(&[0; 32 << 10]).unwrap();
        stdio.run(Stream::Stdout);
    }
}

#[test]
fn a_host_that_leaves_breaks_the_process_pipe() {
    let (mut stdio, process) = Stdio::pipes(0).unwrap();
    drop(attached(&mut stdio, Stream::Stdout));
    let mut out = File::from(process.stdout);
    out.write_all(b"x").unwrap();
    stdio.run(Stream::Stdout);
    assert_eq!(out.write_all(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn a_stream_is_attached_once_and_only_where_there_is_one() {
    let (mut stdio, _process) = Stdio::pipes(0).unwrap();
    let _host = attached(&mut stdio, Stream::Stdout);
    assert_eq!(stdio.can_attach(Stream::Stdout).unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(stdio.can_attach(Stream::Terminal).unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn a_terminal_ends_with_its_process_although_another_has_it_open() {
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut stdio = Stdio::default();
    stdio.add_terminal(pty.master).unwrap();
    let host = attached(&mut stdio, Stream::Terminal);
    let mut survivor = File::from(pty.slave);
    survivor.write_all(b"last words").unwrap();
    stdio.end();
    assert!(!stdio.is_drained());
    stdio.run(Stream::Terminal);
    assert!(stdio.is_drained());
    assert_eq!(text(host), "last words");
}

#[test]
fn a_host_that_closes_the_terminal_hangs_it_up() {
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut stdio = Stdio::default();
    stdio.add_terminal(pty.master).unwrap();
    let host = attached(&mut stdio, Stream::Terminal);
    host.shutdown(std::net::Shutdown::Write).unwrap();
    stdio.run(Stream::Terminal);
    assert!(stdio.is_drained());
    assert_eq!(text(File::from(pty.slave)), "");
    assert_eq!(text(host), "");
}

#[test]
fn further_streams_go_their_own_ways_to_their_own_ends() {
    let mut stdio = Stdio::default();
    let kinds = [StreamKind::Input, StreamKind::Output, StreamKind::Socket, StreamKind::Closed];
    let ends = stdio.add_extra(&kinds, 0).unwrap();
    let [Some(input), Some(output), Some(socket), None] = <[Option<OwnedFd>; 4]>::try_from(ends).unwrap()
    else {
        panic!("a descriptor is missing, or one is too much");
    };
    let mut hosts = [0, 1, 2].map(|index| attached(&mut stdio, Stream::Extra(index)));
    let run = |stdio: &mut Stdio| (0..3).for_each(|index| _ = stdio.run(Stream::Extra(index)));

    hosts[0].write_all(b"in").unwrap();
    hosts[0].shutdown(std::net::Shutdown::Write).unwrap();
    File::from(output).write_all(b"out").unwrap();
    let mut socket = UnixStream::from(socket);
    hosts[2].write_all(b"question").unwrap();
    hosts[2].shutdown(std::net::Shutdown::Write).unwrap();
    run(&mut stdio);
    assert_eq!(text(File::from(input)), "in");
    assert_eq!(text(&hosts[1]), "out");
    assert_eq!(text(&socket), "question");
    // The end of one way is not the other's.
    socket.write_all(b"answer").unwrap();
    drop(socket);
    run(&mut stdio);
    assert_eq!(text(&hosts[2]), "answer");
    assert!(stdio.is_drained());
}
