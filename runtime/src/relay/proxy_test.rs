use super::*;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

/// A client and a server with what is tested between them.
fn proxied() -> (UnixStream, UnixStream, JoinHandle<io::Result<()>>) {
    let (client, one) = UnixStream::pair().unwrap();
    let (other, server) = UnixStream::pair().unwrap();
    (client, server, thread::spawn(move || proxy(one, other)))
}

#[test]
fn both_directions_end_one_by_one() {
    let (mut client, mut server, proxy_thread) = proxied();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "question");
    server.write_all(b"answer").unwrap();
    drop(server);
    text.clear();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "answer");
    proxy_thread.join().unwrap().unwrap();
}

#[test]
fn whoever_is_left_behind_hears_of_it_at_once() {
    let (client, mut server, proxy_thread) = proxied();
    drop(client);
    proxy_thread.join().unwrap().unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn what_one_that_has_closed_said_last_arrives() {
    const LENGTH: usize = 1 << 20;
    let (mut client, mut server, proxy_thread) = proxied();
    let writer = thread::spawn(move || server.write_all(&vec![7; LENGTH]));
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(received.len(), LENGTH);
    proxy_thread.join().unwrap().unwrap();
}

#[test]
fn there_are_as_many_places_as_there_are() {
    let semaphore = Semaphore::new(2);
    let (first, second) = (semaphore.take().unwrap(), semaphore.wait());
    assert!(semaphore.take().is_none());
    let waiting = thread::spawn({
        let semaphore = semaphore.clone();
        move || semaphore.wait()
    });
    drop(first);
    let third = waiting.join().unwrap();
    assert!(semaphore.take().is_none());
    drop((second, third));
    assert!(semaphore.take().is_some());
}
